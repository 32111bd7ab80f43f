"""Options of image classification and of the models it builds. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    rand_augment: str = Field(
        default="",
        pattern=r"^(rand(-(mstd|mmax|inc|m|n|p)\d+(\.\d+)?)*)?$",
        description="RandAugment of training images in timm's words, such as rand-m9-mstd0.5",
    )
    mixup: float = Field(
        default=0.0, ge=0, description="blend training images in pairs, l ~ Beta(mixup, mixup); 0: not"
    )
    cutmix: float = Field(
        default=0.0, ge=0, description="paste boxes between training images, l ~ Beta(cutmix, cutmix); 0: not"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of a training label that is spread over all classes"
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced: the loss of a class counts by the inverse of its number of training images",
    )
    channels_last: bool = Field(
        default=False, description="lay images out with channels last; convolutions may be faster"
    )
    small_images: Literal["refuse", "upscale"] = Field(
        default="refuse", description="what to do with images smaller than one patch of the model"
    )
    cache_mib: int = Field(
        default=512, ge=0, description="keep the resized images in memory when they fit in this many MiB"
    )
    cache_features: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="with nothing trained but the head: compute what the frozen trunk makes of an image once, not in "
        "every epoch; auto: where every bit stays the same",
    )
    cache_features_mib: int = Field(
        default=512, ge=0, description="cache features that fit in this many MiB of memory"
    )
    gallery: int = Field(
        default=24,
        ge=0,
        le=48,
        description="how many of the surest mistakes are kept in the run folder as small pictures, for its page; "
        "0: no picture of any image",
    )
    saliency: int = Field(
        default=9,
        ge=0,
        le=24,
        description="how many of the pictures, and of right answers, get a map of where the prediction comes from",
    )

    @property
    def changing(self) -> tuple[str, ...]:
        """The options in use that give other training images in every epoch, in the order they are applied."""
        options = ("hflip", "crop", "rand_augment", "mixup", "cutmix")
        return tuple(name for name in options if getattr(self, name))

    @model_validator(mode="after")
    def _features_stay(self) -> Self:
        if self.cache_features == "on" and self.changing:
            raise ValueError(
                f"cache_features on needs the same training images in every epoch, and {' and '.join(self.changing)} "
                "would change them: leave one of them out"
            )
        return self


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
        description="file with the weights (.safetensors, .pt, .pth; for a ViT also the .npz of the original "
        "release) instead of a download",
    )
    image_size: int | None = Field(
        default=None, ge=1, description="input size in pixels (default: the model's)"
    )
    drop_path: float = Field(
        default=0.0, ge=0, lt=1, description="rate of stochastic depth in training, where the model has it"
    )
    in_chans: int | None = Field(default=None, ge=1, description="colour channels (default: the model's)")
