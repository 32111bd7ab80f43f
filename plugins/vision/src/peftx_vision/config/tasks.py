"""Options of image classification and of the models it builds. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ClassificationConfig", "TimmConfig", "VitMicroConfig"]


class ClassificationConfig(BaseModel):
    """How images become the model's input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description="squash the whole image to the input size, or scale its shorter side and crop the centre",
    )
    interpolation: Literal["model", "bicubic", "bilinear", "nearest"] = Field(
        default="model", description="how pixels are resampled; model: as the model was pretrained"
    )
    normalise: Literal["model", "imagenet", "half", "none"] = Field(
        default="model",
        description="mean and deviation subtracted and divided; half: 0.5 and 0.5; none: pixels in 0 .. 1",
    )
    hflip: bool = Field(default=False, description="flip half of the training images left to right")
    crop: int = Field(
        default=0, ge=0, description="shift training images by up to this many pixels of the input"
    )
    small_images: Literal["refuse", "upscale"] = Field(
        default="refuse", description="what to do with images smaller than one patch of the model"
    )
    cache_mib: int = Field(
        default=512, ge=0, description="keep the resized images in memory when they fit in this many MiB"
    )


class VitMicroConfig(BaseModel):
    """Options of the small ViT that ships with the pack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrained: bool = Field(default=True, description="start from the shipped weights, or at random")
    weights: Path | None = Field(
        default=None, description="start from this file instead (.safetensors, .pt, .pth)"
    )


class TimmConfig(BaseModel):
    """Options of a timm model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrained: bool = Field(default=True, description="start from pretrained weights, or at random")
    weights: Path | None = Field(
        default=None,
        description="file with the weights (.safetensors, .pt, .pth) instead of a download",
    )
    image_size: int | None = Field(
        default=None, ge=1, description="input size in pixels (default: the model's)"
    )
    in_chans: int | None = Field(default=None, ge=1, description="colour channels (default: the model's)")
