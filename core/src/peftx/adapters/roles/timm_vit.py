"""timm's Vision Transformer: plain, DeiT (one head or two), and every model built from its blocks."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, fused_attention, mlp, separate_attention
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

VIT = RoleTable(
    family="timm-vit",
    # any class of the file, so that a block used alone in a user's model is known too
    roots=(
        r"timm\.models\.(vision_transformer|vision_transformer_relpos|deit|flexivit|vision_transformer_hybrid)\.\w+",
    ),
    rules=(
        # a net of two layers that turns offsets of tokens into relative position biases
        Rule(ANY + r"rel_pos\.mlp\..*", "embedding.position"),
        # SigLIP-style pooling: a latent query attends to the tokens; it pools, it is no block of the trunk
        Rule(ANY + r"attn_pool\..*", "pooler", kinds=("linear",)),
        *fused_attention("attn", "qkv", "proj"),
        *separate_attention("attn", "q_proj", "k_proj", "v_proj", "proj"),
        Rule(rf"(?P<unit>{ANY}attn)\.gate", "attention.gate"),
        *mlp("mlp", "(fc1|fc1_x|w12|w2)", "(fc2|w3)", gate="(fc1_g|w1)"),
        # ParallelScalingBlock: one weight for [mlp | q | k | v], slices of unequal height, so never sliced
        Rule(ANY + r"in_proj", "attention.qkv"),
        Rule(ANY + r"(attn_out_proj|out_proj)", "attention.out"),
        Rule(ANY + r"mlp_out_proj", "mlp.down"),
        Rule(ANY + r"patch_embed\.backbone\..*", "conv", kinds=("conv",)),
        Rule(ANY + r"patch_embed\..*", "embedding.patch", kinds=("linear", "conv")),
        Rule(r"pre_logits\.fc", "projection"),
        NORMS,
    ),
    parameters=PARAMETERS,
    heads=(
        Head((r"timm\.models\.deit\.VisionTransformerDistilled",), ("head", "head_dist")),
        Head((r"timm\.models\.vision_transformer\.VisionTransformer",), ("head",)),
        Head((r"timm\.models\.vision_transformer_relpos\.VisionTransformerRelPos",), ("head",)),
    ),
    note="qkv stacks q, k, v as thirds of its rows; fc_norm is a norm of the trunk, pre-trained or not",
)

TABLES = (VIT,)
