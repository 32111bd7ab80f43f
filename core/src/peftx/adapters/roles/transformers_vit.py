"""transformers' ViT, DeiT and BEiT, in the spelling of version 5 and of version 4."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, BLOCK, NORMS, PARAMETERS, mlp, separate_attention
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

_ROOT = r"transformers\.models\.(vit|deit|beit)\.modeling_(vit|deit|beit)\."

VIT = RoleTable(
    family="transformers-vit",
    roots=(_ROOT + r"\w+",),
    rules=(
        # version 5: layers.0.attention.q_proj, layers.0.mlp.fc1
        *separate_attention("attention", "q_proj", "k_proj", "v_proj", "o_proj"),
        *mlp("mlp", "fc1", "fc2"),
        # version 4: encoder.layer.0.attention.attention.query, .attention.output.dense, .intermediate.dense
        *separate_attention("attention", "query", "key", "value", r"output\.dense", inner=r"attention\."),
        Rule(BLOCK + r"intermediate\.dense", "mlp.up"),
        Rule(BLOCK + r"output\.dense", "mlp.down"),
        Rule(ANY + r"patch_embeddings\.projection", "embedding.patch"),
        Rule(ANY + r"pooler\.dense", "pooler"),
        # masked image modelling: BEiT predicts visual words, ViT and DeiT pixels
        Rule(r"lm_head", "lm_head"),
        Rule(ANY + r"decoder\.\d+", "projection", kinds=("conv",)),
        Rule(ANY + r".*", "conv", kinds=("conv",)),
        NORMS,
    ),
    parameters=PARAMETERS,
    heads=(
        Head(
            (_ROOT + r"DeiTForImageClassificationWithTeacher",), ("cls_classifier", "distillation_classifier")
        ),
        Head((_ROOT + r"\w+ForSemanticSegmentation",), ("decode_head", "auxiliary_head")),
    ),
    note="vit.layernorm is a norm of the trunk; BEiT's key map has no bias",
)

TABLES = (VIT,)
