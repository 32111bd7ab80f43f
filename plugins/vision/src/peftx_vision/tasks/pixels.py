"""From a decoded image to the model's input: the same few steps in training, evaluation and prediction.

    image -> uint8 (channels, height, width) -> resized uint8 (channels, S, S) -> float, normalised

The resized image is kept in eight bits, so what a cache holds and what is prepared on the fly are the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from peftx.errors import DataError, ModelError
from peftx_vision.config.tasks import ClassificationConfig

__all__ = ["InputSpec", "augment", "describe", "input_spec", "prepare", "scaled_size", "to_input"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
_MODES = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "nearest": InterpolationMode.NEAREST_EXACT,
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model eats: channels, height and width in pixels, statistics, and its patch (or first kernel)."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize: str
    crop_pct: float
    patch: tuple[int, int]
    small_images: str

    @property
    def bytes(self) -> int:
        """Bytes of one prepared image."""
        return self.channels * self.height * self.width


def input_spec(model: nn.Module, config: ClassificationConfig) -> InputSpec:
    """Read a model's input off its `pretrained_cfg` (timm's convention); models without one get 224 and 0.5 / 0.5.

    Raises:
        ModelError: a model of other than 1 or 3 channels.
    """
    card: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = card.get("input_size", (3, 224, 224))
    if channels not in (1, 3):
        raise ModelError(f"images have 1 or 3 channels, the model takes {channels}")
    own = tuple(card.get("mean", HALF)), tuple(card.get("std", HALF))
    mean, std = {
        "model": own,
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "half": (HALF, HALF),
        "none": ((0.0,) * 3, (1.0,) * 3),
    }[config.normalise]
    if channels == 1 and len(mean) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    name = config.interpolation if config.interpolation != "model" else card.get("interpolation", "bicubic")
    return InputSpec(
        channels=channels,
        height=height,
        width=width,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        interpolation=name if name in _MODES else "bicubic",
        resize=config.resize,
        crop_pct=float(card.get("crop_pct") or 1.0),
        patch=_patch(model, card),
        small_images=config.small_images,
    )


def prepare(image: Any, spec: InputSpec, where: str) -> Tensor:  # (channels, height, width), uint8
    """Turn a PIL image or a uint8 array (height, width[, 3]) into the model's size; `where` names it in errors.

    Raises:
        DataError: the image is smaller than a patch of the model, or not an image of 8 bits.
    """
    pixels = _tensor(image, where)
    height, width = pixels.shape[1:]
    if spec.small_images == "refuse" and (height < spec.patch[0] or width < spec.patch[1]):
        raise DataError(
            f"{where} is {width}x{height} pixels, smaller than one {spec.patch[1]}x{spec.patch[0]} patch of the model: "
            "choose a model with smaller patches, or enlarge such images with --task.small-images upscale"
        )
    if pixels.shape[0] != spec.channels:
        pixels = F.rgb_to_grayscale(pixels) if spec.channels == 1 else pixels.expand(3, -1, -1)
    mode = _MODES[spec.interpolation]
    if spec.resize == "squash":
        return F.resize(pixels, [spec.height, spec.width], interpolation=mode, antialias=True)
    size = list(scaled_size(height, width, spec))
    return F.center_crop(
        F.resize(pixels, size, interpolation=mode, antialias=True), [spec.height, spec.width]
    )


def scaled_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Height and width that an image is scaled to before its centre is cropped: the crop is crop_pct of it, as the
    model was evaluated by its authors."""
    scale = max(spec.height / height, spec.width / width) / spec.crop_pct
    return max(spec.height, round(height * scale)), max(spec.width, round(width * scale))


def to_input(pixels: Tensor, spec: InputSpec) -> Tensor:  # (B, channels, H, W) uint8 -> float32
    """Scale to 0 .. 1 and normalise: ``(x / 255 - mean) / std``."""
    mean = torch.tensor(spec.mean).view(1, -1, 1, 1)
    std = torch.tensor(spec.std).view(1, -1, 1, 1)
    return pixels.float().div_(255.0).sub_(mean).div_(std)


def describe(spec: InputSpec, config: ClassificationConfig) -> dict[str, Any]:
    """What a record says of the input, in words: size, resize mode, normalisation with its name, augmentation.

    The name of a normalisation is found by its figures, so that one the model brings is called what it is.
    """
    whole = spec.resize == "squash"
    return {
        "size": f"{spec.channels} x {spec.height} x {spec.width}",
        "resize": "squash" if whole else f"crop, the central {spec.crop_pct:g}",
        "interpolation": spec.interpolation,
        "small images": config.small_images,
        "normalisation": _normalisation(spec) + (", the model's own" if config.normalise == "model" else ""),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "augmentation": _augmentation(config),
    }


def _normalisation(spec: InputSpec) -> str:
    known: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "half": (HALF, HALF),
        "none": ((0.0,) * 3, (1.0,) * 3),
    }
    for name, (mean, std) in known.items():
        if spec.channels == 1:
            mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        if np.allclose(spec.mean, mean) and np.allclose(spec.std, std):
            return name
    return "of another mean and deviation"


def _augmentation(config: ClassificationConfig) -> str:
    """The options of training images that are on, by their names and in the order they are applied; ``none``."""
    held = [(name, getattr(config, name)) for name in config.changing]
    told = [name if value is True else f"{name} {value}" for name, value in held]
    return ", ".join(told) or "none"


def augment(pixels: Tensor, config: ClassificationConfig, generator: torch.Generator | None) -> Tensor:
    """Flip half of the images and shift each by up to `crop` pixels (edges repeated); draws from `generator` only."""
    count, _, height, width = pixels.shape
    if config.hflip:
        flip = torch.rand(count, generator=generator) < 0.5
        pixels = torch.where(flip.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    if config.crop:
        shift = torch.randint(-config.crop, config.crop + 1, (2, count, 1), generator=generator)
        rows = (torch.arange(height) + shift[0]).clamp_(0, height - 1)  # (B, H)
        columns = (torch.arange(width) + shift[1]).clamp_(0, width - 1)  # (B, W)
        batch = torch.arange(count)
        pixels = pixels[batch.view(-1, 1, 1), :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return pixels


def _tensor(image: Any, where: str) -> Tensor:  # (1 or 3, height, width), uint8
    if not isinstance(image, np.ndarray) and getattr(image, "mode", "RGB") not in ("L", "RGB"):
        image = image.convert("RGB")
    array = np.array(image)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3))
    ):
        raise DataError(
            f"{where} is an array of {array.dtype} {array.shape}: expected 8-bit pixels, height x width [x 3]"
        )
    pixels = torch.from_numpy(array)
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _patch(model: nn.Module, card: Mapping[str, Any]) -> tuple[int, int]:
    """Patch of a patch embedding, else the kernel of the first convolution, else one pixel."""
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    first = card.get("first_conv")
    if size is None and isinstance(first, str):
        try:
            size = model.get_submodule(first).kernel_size
        except AttributeError:
            size = None
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[1])) if size is not None and len(size) == 2 else (1, 1)
