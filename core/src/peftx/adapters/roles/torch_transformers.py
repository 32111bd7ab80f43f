"""Plain torch: ``nn.Transformer`` and its layers, and packed ``nn.MultiheadAttention`` wherever it stands."""

from __future__ import annotations

from peftx.adapters.roles.common import BLOCK, NORMS, PARAMETERS, QKV, packed_attention
from peftx.adapters.roles.table import RoleTable, Rule

__all__ = ["TABLES"]

_LAYER = r"torch\.nn\.modules\.transformer\.\w+"

TRANSFORMER = RoleTable(
    family="torch-transformer",
    roots=(_LAYER,),
    rules=(
        *packed_attention("self_attn"),
        *packed_attention("multihead_attn", "cross_attention"),
        Rule(BLOCK + r"linear1", "mlp.up", raw=True),
        Rule(BLOCK + r"linear2", "mlp.down", raw=True),
        NORMS,
    ),
    batch_first=(_LAYER,),
    rank=1,
    note="in_proj_weight stacks q, k, v; in eval mode the encoder layer's fast path reads all its weights raw",
)

ATTENTION = RoleTable(
    family="torch-attention",
    roots=(r"torch\.nn\.modules\.activation\.MultiheadAttention",),
    rules=(
        # with kdim or vdim the three weights are separate parameters; the parts are named the same
        Rule(r"(?P<unit>)", "attention.qkv", QKV),
        Rule(r"(?P<unit>)out_proj", "attention.out", raw=True),
    ),
    parameters=PARAMETERS,
    batch_first=(r"torch\.nn\.modules\.activation\.MultiheadAttention",),
    rank=2,
    note="whether a bare attention is self- or cross-attention shows only in its call, so it counts as self",
)

TABLES = (TRANSFORMER, ATTENTION)
