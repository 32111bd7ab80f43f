"""Batches of images: prepared once and kept in memory when they fit, else prepared by threads, ahead of use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from peftx.data.contract import Split
from peftx.errors import DataError
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.mixing import BatchMix, RandAugment
from peftx_vision.tasks.pixels import InputSpec, augment, prepare, to_input

__all__ = ["ImageBatches", "PreparedSplit"]

#: Batches that threads prepare ahead of the one in use.
AHEAD = 2


class PreparedSplit:
    """A split whose images come out in the model's size.

    `keep`: hold all of them in memory as one uint8 tensor, filled on first use.
    """

    def __init__(
        self, name: str, split: Split[Any], spec: InputSpec, *, keep: bool, workers: int = 0
    ) -> None:
        self.name, self.split, self.spec, self.keep = name, split, spec, keep
        self.workers = workers or min(8, os.cpu_count() or 1)
        self._pixels: Tensor | None = None
        self.labels = _labels(split)

    def __len__(self) -> int:
        return len(self.split)

    def fill(self) -> None:
        """Prepare every image now, if they are to be kept. Raises DataError, naming the first that cannot be read."""
        if not self.keep or self._pixels is not None:
            return
        pixels = torch.empty(
            len(self), self.spec.channels, self.spec.height, self.spec.width, dtype=torch.uint8
        )
        with ThreadPoolExecutor(self.workers) as pool:
            for index, image in enumerate(pool.map(self._one, range(len(self)))):
                pixels[index] = image
        self._pixels = pixels

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels of each batch of indices: uint8, (B, channels, height, width)."""
        self.fill()
        if self._pixels is not None:
            for indices in batches:
                yield self._pixels[indices]
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: list[list[Future[Tensor]]] = []
            rest = iter(batches)
            try:
                for indices in rest:
                    waiting.append([pool.submit(self._one, int(index)) for index in indices])
                    if len(waiting) > AHEAD:
                        yield torch.stack([image.result() for image in waiting.pop(0)])
                while waiting:
                    yield torch.stack([image.result() for image in waiting.pop(0)])
            finally:
                for image in (image for batch in waiting for image in batch):
                    image.cancel()

    def _one(self, index: int) -> Tensor:
        files = getattr(self.split, "files", None)
        where = f"image {files[index]}" if files else f"image {index} of the {self.name} split"
        return prepare(self.split[index][0], self.spec, where)


class ImageBatches:
    """One pass over a split; every `iter` is a new pass, shuffled and augmented anew when `train`.

    Mixup and CutMix need the number of `classes`, and make ``labels`` probabilities (B, C). With `features` (N, ...),
    ``images`` are rows of those, and no image is prepared.
    """

    def __init__(
        self,
        source: PreparedSplit,
        batch_size: int,
        config: ClassificationConfig,
        *,
        train: bool = False,
        generator: torch.Generator | None = None,
        classes: int = 0,
        features: Tensor | None = None,
    ) -> None:
        self.features = features
        self.source, self.batch_size, self.config = source, batch_size, config
        self.train, self.generator = train, generator
        self._rand = RandAugment(config.rand_augment, source.spec) if train and config.rand_augment else None
        self._mix = BatchMix(config, classes) if train and (config.mixup or config.cutmix) else None

    def __len__(self) -> int:
        return len(self._cut(torch.empty(len(self.source), dtype=torch.int64)))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count = len(self.source)
        order = torch.randperm(count, generator=self.generator) if self.train else torch.arange(count)
        batches = self._cut(order)
        if self.features is not None:
            for indices in batches:
                yield {"images": self.features[indices], "labels": self.source.labels[indices]}
            return
        for indices, pixels in zip(batches, self.source.stream(batches), strict=True):
            if self.train:
                pixels = augment(pixels, self.config, self.generator)
            if self._rand is not None:
                pixels = self._rand(pixels, self.generator)
            images, labels = to_input(pixels, self.source.spec), self.source.labels[indices]
            if self._mix is not None:
                images, labels = self._mix(images, labels, self.generator)
            if self.config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            yield {"images": images, "labels": labels}

    def _cut(self, order: Tensor) -> list[Tensor]:
        parts = list(order.split(self.batch_size))
        if self.train and len(parts) > 1 and len(parts[-1]) == 1:
            # batch normalisation cannot train on one sample: it joins the batch before
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts


def _labels(split: Split[Any]) -> Tensor:  # (N,), int64
    labels = split.labels
    if labels is None:
        raise DataError("these samples have no class labels, and image classification needs one for each")
    return torch.tensor([int(label) for label in labels], dtype=torch.int64)
