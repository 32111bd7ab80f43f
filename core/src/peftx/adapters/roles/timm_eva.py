"""timm's EVA, EVA-02 and the rotary ViTs built from the same blocks."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, fused_attention, mlp, separate_attention
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

EVA = RoleTable(
    family="timm-eva",
    roots=(r"timm\.models\.eva\.\w+",),
    rules=(
        Rule(ANY + r"attn_pool\..*", "pooler", kinds=("linear",)),
        # the large models fuse and, like BEiT, may read qkv.weight without calling the module; EVA-02
        # separates
        *fused_attention("attn", "qkv", "proj", raw=True),
        *separate_attention("attn", "q_proj", "k_proj", "v_proj", "proj"),
        Rule(rf"(?P<unit>{ANY}attn)\.gate", "attention.gate"),
        *mlp("mlp", "(fc1|fc1_x)", "fc2", gate="fc1_g"),
        Rule(ANY + r"patch_embed\..*", "embedding.patch", kinds=("linear", "conv")),
        NORMS,
    ),
    parameters=(*PARAMETERS, Rule(ANY + r"(rope\.\w+|freqs)", "embedding.position")),
    heads=(Head((r"timm\.models\.eva\.Eva",), ("head",)),),
    note="mlp.norm and attn.norm are inner norms; fc1_g is the gate of SwiGLU, fc1_x its linear half",
)

TABLES = (EVA,)
