"""timm's Swin Transformer, version 1, version 2, and timm's own variant of version 2."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, fused_attention, mlp
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]


def _table(family: str, file: str, model: str, raw: bool, note: str) -> RoleTable:
    return RoleTable(
        family=family,
        roots=(rf"timm\.models\.{file}\.\w+",),
        rules=(
            # a net of two layers that turns window offsets into relative position biases
            Rule(ANY + r"attn\.(cpb_mlp|meta_mlp)\..*", "embedding.position"),
            *fused_attention("attn", "qkv", "proj", raw=raw),
            *mlp("mlp", "fc1", "fc2"),
            Rule(ANY + r"reduction", "downsample"),
            Rule(ANY + r"patch_embed\..*", "embedding.patch", kinds=("linear", "conv")),
            NORMS,
        ),
        parameters=PARAMETERS,
        heads=(Head((rf"timm\.models\.{file}\.{model}",), ("head.fc",)),),
        note=note,
    )


SWIN = _table(
    "timm-swin",
    "swin_transformer",
    "SwinTransformer",
    raw=False,
    note="relative_position_bias_table is embedding.position, not a bias",
)
# forward is F.linear(x, self.qkv.weight, cat(q_bias, 0, v_bias)): the qkv module itself is never called
SWIN_V2 = _table(
    "timm-swin-v2",
    "swin_transformer_v2",
    "SwinTransformerV2",
    raw=True,
    note="the qkv bias is two parameters of the attention, q_bias and v_bias; cpb_mlp is embedding.position",
)
SWIN_V2_CR = _table(
    "timm-swin-v2-cr",
    "swin_transformer_v2_cr",
    "SwinTransformerV2Cr",
    raw=False,
    note="meta_mlp is embedding.position",
)

TABLES = (SWIN, SWIN_V2, SWIN_V2_CR)
