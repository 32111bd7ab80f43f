"""timm's ResNet and its relatives: ResNeXt, SE-ResNet, Wide ResNet."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

RESNET = RoleTable(
    family="timm-resnet",
    roots=(r"timm\.models\.resnet\.\w+",),
    rules=(
        Rule(ANY + r"downsample\..*", "downsample", kinds=("conv",)),
        # the stem is one 7x7 convolution, or three small ones; blocks lie below layerN
        Rule(r"conv1(\.\d+)?", "embedding.patch", kinds=("conv",)),
        Rule(ANY + r".*", "conv", kinds=("conv",)),
        NORMS,
    ),
    heads=(Head((r"timm\.models\.resnet\.ResNet",), ("fc",)),),
    note="squeeze-and-excitation is 1x1 convolutions: role conv",
)

TABLES = (RESNET,)
