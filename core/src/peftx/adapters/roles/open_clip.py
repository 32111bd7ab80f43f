"""open_clip: towers with packed attention, the modified ResNet tower, poolers and projections."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, QKV, mlp, packed_attention
from peftx.adapters.roles.table import RoleTable, Rule

__all__ = ["TABLES"]

CLIP = RoleTable(
    family="open-clip",
    roots=(r"open_clip\.(model|transformer|coca_model|timm_model|hf_model)\.\w+",),
    rules=(
        Rule(ANY + r"attn_pool\.attn(\.out_proj)?", "pooler"),
        *packed_attention(r"cross_attn\.\d+\.attn", "cross_attention"),
        *packed_attention("attn"),
        *mlp("mlp", "c_fc", "c_proj"),
        Rule(ANY + r"conv1", "embedding.patch"),
        Rule(ANY + r"token_embedding", "embedding.token"),
        Rule(
            ANY + r"text_projection|(text\.)?proj(\.\d+)?|visual\.head\..*", "projection", kinds=("linear",)
        ),
        NORMS,
    ),
    parameters=(
        # CustomResidualAttentionBlock keeps the packed weight in a class of its own
        Rule(rf"(?P<unit>{ANY}attn)\.in_proj_(weight|bias)", "attention.qkv", QKV),
        Rule(ANY + r"(text_projection|proj)", "projection"),
        *PARAMETERS,
    ),
    # the tower permutes to (T, B, D) around its blocks when they are not batch_first; norms outside stay (B,
    # T, D)
    batch_first=(r"open_clip\.transformer\.(Custom)?(Transformer|ResidualAttentionBlock)",),
    note="place of q, k and v is the attention module itself (in_proj_weight); a timm tower uses timm's tables",
)

RESNET = RoleTable(
    family="open-clip-resnet",
    roots=(r"open_clip\.modified_resnet\.\w+",),
    rules=(
        Rule(ANY + r"attnpool\..*", "pooler", kinds=("linear",)),
        Rule(r"conv[123]", "embedding.patch"),
        Rule(ANY + r"downsample\..*", "downsample", kinds=("conv",)),
        Rule(ANY + r".*", "conv", kinds=("conv",)),
        NORMS,
    ),
    parameters=PARAMETERS,
    note="three convolutions make the stem; attention only pools",
)

TABLES = (CLIP, RESNET)
