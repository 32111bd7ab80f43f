"""Batches: kept in memory or prepared ahead, the same numbers; order; the sample that would stay alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from peftx.data import Split
from peftx.errors import DataError
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.images import ImageBatches, PreparedSplit
from peftx_vision.tasks.pixels import InputSpec

SPEC = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3, "bilinear", "squash", 1.0, (2, 2), "refuse")
CONFIG = ClassificationConfig()


class Images(Split[Any]):
    def __init__(self, count: int = 13, bad: int | None = None) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 6), np.uint8)
        self.bad = bad
        self.decoded = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.decoded += 1
        if index == self.bad:
            raise DataError(f"cannot read the image {index}.png")
        return self.pixels[index], index % 3

    @property
    def labels(self) -> list[int]:
        return [index % 3 for index in range(len(self))]


def collect(keep: bool, train: bool, size: int = 4) -> list[dict[str, torch.Tensor]]:
    source = PreparedSplit("train", Images(), SPEC, keep=keep, workers=2)
    draw = torch.Generator().manual_seed(0) if train else None
    return list(ImageBatches(source, size, CONFIG, train=train, generator=draw))


@pytest.mark.parametrize("train", [False, True])
def test_memory_and_threads_give_the_same_batches(train: bool) -> None:
    for kept, threaded in zip(collect(True, train), collect(False, train), strict=True):
        assert torch.equal(kept["images"], threaded["images"])
        assert torch.equal(kept["labels"], threaded["labels"])


def test_labels_follow_their_images_through_the_shuffle() -> None:
    plain = {
        tuple(b["images"][i].flatten()[:9].tolist()): int(b["labels"][i])
        for b in collect(True, False)
        for i in range(len(b["labels"]))
    }
    for batch in collect(True, True):
        for image, label in zip(batch["images"], batch["labels"], strict=True):
            assert plain[tuple(image.flatten()[:9].tolist())] == int(label)


def test_every_pass_is_a_new_shuffle_and_evaluation_keeps_the_order() -> None:
    source = PreparedSplit("train", Images(), SPEC, keep=True)
    shuffled = ImageBatches(source, 13, CONFIG, train=True, generator=torch.Generator().manual_seed(0))
    passes = [next(iter(shuffled))["images"] for _ in range(2)]
    assert not torch.equal(*passes)
    in_order = torch.cat([b["labels"] for b in ImageBatches(source, 5, CONFIG)])
    assert in_order.tolist() == source.split.labels


@pytest.mark.parametrize(
    ("size", "train", "sizes"),
    [(4, True, [4, 4, 5]), (4, False, [4, 4, 4, 1]), (13, True, [13]), (1, True, [1] * 11 + [2])],
)
def test_no_training_batch_of_one_at_the_end(size: int, train: bool, sizes: list[int]) -> None:
    source = PreparedSplit("train", Images(), SPEC, keep=True)
    batches = ImageBatches(source, size, CONFIG, train=train, generator=torch.Generator())
    assert [len(b["labels"]) for b in batches] == sizes
    assert len(batches) == len(sizes)


def test_kept_images_are_decoded_once() -> None:
    images = Images()
    source = PreparedSplit("train", images, SPEC, keep=True)
    for _ in range(3):
        list(ImageBatches(source, 4, CONFIG))
    assert images.decoded == 13


@pytest.mark.parametrize("keep", [True, False])
def test_an_unreadable_image_is_named(keep: bool) -> None:
    source = PreparedSplit("train", Images(bad=7), SPEC, keep=keep)
    with pytest.raises(DataError, match=r"7\.png"):
        list(ImageBatches(source, 4, CONFIG))


def test_a_pass_may_be_left_early() -> None:
    source = PreparedSplit("train", Images(), SPEC, keep=False)
    first = next(iter(ImageBatches(source, 4, CONFIG)))
    assert first["images"].shape == (4, 3, 8, 8)


def test_samples_without_labels_are_refused() -> None:
    class Bare(Images):
        labels = None  # type: ignore[assignment]

    with pytest.raises(DataError, match="no class labels"):
        PreparedSplit("train", Bare(), SPEC, keep=True)
