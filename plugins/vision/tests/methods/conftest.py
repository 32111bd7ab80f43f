"""Small timm models none of whose values rests at zero or one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

_SQUARE = {"embed_dim": 24, "num_heads": 2, "img_size": 16, "patch_size": 8, "num_classes": 3}


def _vit(models: Any) -> Any:
    return models.VisionTransformer(depth=3, **_SQUARE)


def _vit_scaled(models: Any) -> Any:
    return models.VisionTransformer(depth=2, init_values=0.3, **_SQUARE)


def _deit(models: Any) -> Any:
    return models.deit.VisionTransformerDistilled(depth=2, **_SQUARE)


def _swin(models: Any, kind: str = "SwinTransformer") -> Any:
    shape = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "drop_path_rate": 0.0}
    return getattr(models, kind)(**shape, depths=(2, 1), num_heads=(1, 2), num_classes=3)


def _convnext(models: Any) -> Any:
    # the first stage has as many channels as rows and columns
    shape = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "patch_size": 2, "kernel_sizes": 3}
    return models.ConvNeXt(**shape, num_classes=3, output_stride=8, ls_init_value=0.7)


_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "vit": _vit,
    "vit_scaled": _vit_scaled,
    "deit": _deit,
    "swin": _swin,
    "swin_v2": lambda models: _swin(models, "SwinTransformerV2"),
    "convnext": _convnext,
}


@pytest.fixture
def small() -> Callable[..., nn.Module]:
    """``small(name, dtype)``: the same model at every call, in evaluation mode."""
    timm = pytest.importorskip("timm")

    def build(name: str = "vit", dtype: torch.dtype = torch.float32) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module = _BUILDERS[name](timm.models)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model.to(dtype).eval()

    return build


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """``images(dtype, count)``: the same images at every call."""

    def draw(dtype: torch.dtype = torch.float32, count: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype)

    return draw
