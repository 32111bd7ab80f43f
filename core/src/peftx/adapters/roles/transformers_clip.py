"""transformers' CLIP: text tower, vision tower, and the projections into the shared space."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, mlp, separate_attention
from peftx.adapters.roles.table import RoleTable, Rule

__all__ = ["TABLES"]

CLIP = RoleTable(
    family="transformers-clip",
    roots=(r"transformers\.models\.clip\.modeling_clip\.\w+",),
    rules=(
        *separate_attention("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
        *mlp("mlp", "fc1", "fc2"),
        Rule(ANY + r"token_embedding", "embedding.token"),
        Rule(ANY + r"position_embedding", "embedding.position"),
        Rule(ANY + r"patch_embedding", "embedding.patch"),
        Rule(ANY + r"(visual|text)_projection", "projection"),
        NORMS,
    ),
    parameters=PARAMETERS,
    note="select one tower by path (`text_model.*`, `vision_model.*`); pre_layrnorm is spelt so in the library",
)

TABLES = (CLIP,)
