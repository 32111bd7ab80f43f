"""timm's BEiT and BEiT v2."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, fused_attention, mlp
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

BEIT = RoleTable(
    family="timm-beit",
    roots=(r"timm\.models\.beit\.\w+",),
    rules=(
        # forward is F.linear(x, self.qkv.weight, cat(q_bias, 0, v_bias)): the qkv module itself is never
        # called
        *fused_attention("attn", "qkv", "proj", raw=True),
        *mlp("mlp", "(fc1|fc1_x)", "fc2", gate="fc1_g"),
        Rule(ANY + r"patch_embed\..*", "embedding.patch", kinds=("linear", "conv")),
        NORMS,
    ),
    parameters=PARAMETERS,
    heads=(Head((r"timm\.models\.beit\.Beit",), ("head",)),),
    note="the qkv bias is two parameters of the attention, q_bias and v_bias; keys have none",
)

TABLES = (BEIT,)
