"""Augmentation of whole training batches by timm: RandAugment on their images, mixup and CutMix between them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from timm.data import Mixup
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms.v2 import functional as F

from peftx.errors import ConfigError
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.pixels import InputSpec

__all__ = ["BatchMix", "RandAugment", "drawing_from"]


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Let what draws from Python's and NumPy's global generators follow `generator`, and leave those as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    seed = int(torch.randint(2**31, (), generator=generator))
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class BatchMix:
    """Mixup and CutMix: ``x = l x + (1 - l) x'`` or a box of x' in x, ``y = l y + (1 - l) y'``, l ~ Beta(a, a).

    x' is the batch in reverse order, l is one number a batch; where both are on, each batch takes either. The last
    image of an odd batch stays as it is.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412; Yun et al., "CutMix", ICCV
    2019, arXiv 1905.04899.
    """

    def __init__(self, config: ClassificationConfig, classes: int) -> None:
        self.classes = classes
        self._mix = Mixup(
            mixup_alpha=config.mixup, cutmix_alpha=config.cutmix, label_smoothing=0.0, num_classes=classes
        )

    def __call__(
        self, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return images (B, channels, H, W) and class probabilities (B, C) for images and labels (B,)."""
        even = len(images) // 2 * 2
        targets = one_hot(labels, self.classes).float()
        if not even:
            return images, targets
        with drawing_from(generator):
            mixed, targets[:even] = self._mix(images[:even].clone(), labels[:even])
        return torch.cat([mixed, images[even:]]), targets


class RandAugment:
    """RandAugment of prepared images (B, 3, H, W), uint8, in timm's words: ``rand-m9-n2-mstd0.5``.

    Cubuk et al., "RandAugment", 2020, arXiv 1909.13719.

    Raises:
        ConfigError: the model takes images of one channel.
    """

    def __init__(self, words: str, spec: InputSpec) -> None:
        if spec.channels != 3:
            raise ConfigError(
                f"rand_augment changes colours, and the model takes images of {spec.channels} channel: leave it out"
            )
        fill = tuple(round(255 * value) for value in spec.mean)
        shift = int(0.45 * min(spec.height, spec.width))
        self._transform = rand_augment_transform(words, {"translate_const": shift, "img_mean": fill})

    def __call__(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return other images of the same shape, each changed on its own."""
        with drawing_from(generator):
            changed = [self._transform(F.to_pil_image(image)) for image in pixels]
        return torch.stack([F.pil_to_tensor(image) for image in changed])
