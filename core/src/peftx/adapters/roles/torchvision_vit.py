"""torchvision's Vision Transformer, and where its other classifiers keep their head."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, mlp, packed_attention
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

_MODELS = r"torchvision\.models\."

VIT = RoleTable(
    family="torchvision-vit",
    roots=(_MODELS + r"vision_transformer\.\w+",),
    rules=(
        *packed_attention("self_attention"),
        *mlp("mlp", "(0|linear_1)", "(3|linear_2)"),  # linear_N before torchvision 0.13
        Rule(ANY + r"conv_proj|" + ANY + r"conv_proj\..*", "embedding.patch", kinds=("conv",)),
        Rule(ANY + r"heads\.pre_logits", "projection"),
        NORMS,
    ),
    parameters=PARAMETERS,
    heads=(Head((_MODELS + r"vision_transformer\.VisionTransformer",), ("heads.head",)),),
)

OTHERS = RoleTable(
    family="torchvision",
    # never a root: the layers of these models are left to the generic names
    roots=(),
    rules=(),
    heads=(
        Head((_MODELS + r"resnet\.ResNet", _MODELS + r"regnet\.RegNet"), ("fc",)),
        Head((_MODELS + r"swin_transformer\.SwinTransformer",), ("head",)),
        Head((_MODELS + r"convnext\.ConvNeXt",), ("classifier.2",)),
        Head(
            (_MODELS + r"efficientnet\.EfficientNet", _MODELS + r"mobilenetv2\.MobileNetV2"),
            ("classifier.1",),
        ),
        Head((_MODELS + r"mobilenetv3\.MobileNetV3",), ("classifier.3",)),
        Head((_MODELS + r"densenet\.DenseNet",), ("classifier",)),
    ),
    note="heads only",
)

TABLES = (VIT, OTHERS)
