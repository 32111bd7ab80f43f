"""timm's ConvNeXt, version 1 and 2."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, mlp
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

CONVNEXT = RoleTable(
    family="timm-convnext",
    roots=(r"timm\.models\.convnext\.\w+",),
    rules=(
        Rule(ANY + r"stem\..*", "embedding.patch", kinds=("conv",)),
        Rule(ANY + r"(downsample|shortcut)\..*", "downsample", kinds=("conv",)),
        Rule(ANY + r"conv_dw", "conv"),
        # linear, or 1x1 convolutions in the `conv_mlp` variants
        *mlp("mlp", "fc1", "fc2"),
        Rule(ANY + r"head\.pre_logits\.fc", "projection"),
        NORMS,
    ),
    parameters=PARAMETERS,
    heads=(Head((r"timm\.models\.convnext\.ConvNeXt",), ("head.fc",)),),
    note="head.norm is a pre-trained norm of the trunk; grn (version 2) is a norm",
)

TABLES = (CONVNEXT,)
