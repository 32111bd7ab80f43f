"""Plain torch: ``nn.Transformer`` and its layers, and packed ``nn.MultiheadAttention`` wherever it stands."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, QKV
from peftx.adapters.roles.table import RoleTable, Rule

__all__ = ["TABLES"]

_LAYER = r"torch\.nn\.modules\.transformer\.\w+"

TRANSFORMER = RoleTable(
    family="torch-transformer",
    roots=(_LAYER,),
    rules=(
        Rule(rf"(?P<unit>{ANY}self_attn)", "attention.qkv", QKV, kinds=("packed_attention",)),
        Rule(rf"(?P<unit>{ANY}self_attn)\.out_proj", "attention.out"),
        Rule(rf"(?P<unit>{ANY}multihead_attn)", "cross_attention.qkv", QKV, kinds=("packed_attention",)),
        Rule(rf"(?P<unit>{ANY}multihead_attn)\.out_proj", "cross_attention.out"),
        Rule(r"(?:(?P<block>.*)\.)?linear1", "mlp.up"),
        Rule(r"(?:(?P<block>.*)\.)?linear2", "mlp.down"),
        NORMS,
    ),
    batch_first=(_LAYER,),
    rank=1,
    note="in_proj_weight stacks q, k, v; the fast path of the encoder layer reads raw weights in eval mode",
)

ATTENTION = RoleTable(
    family="torch-attention",
    roots=(r"torch\.nn\.modules\.activation\.MultiheadAttention",),
    rules=(
        # with kdim or vdim the three weights are separate parameters; the parts are named the same
        Rule(r"(?P<unit>)", "attention.qkv", QKV),
        Rule(r"(?P<unit>)out_proj", "attention.out"),
    ),
    parameters=PARAMETERS,
    batch_first=(r"torch\.nn\.modules\.activation\.MultiheadAttention",),
    rank=2,
    note="whether a bare attention is self- or cross-attention shows only in its call, so it counts as self",
)

TABLES = (TRANSFORMER, ATTENTION)
