"""Batches that timm mixes: what comes out, what it draws from, and the loss of probabilities."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from peftx.errors import ConfigError
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.mixing import BatchMix, RandAugment, drawing_from
from peftx_vision.tasks.pixels import InputSpec

SPEC = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3, "bilinear", "squash", 1.0, (2, 2), "refuse")
GRAY = InputSpec(1, 16, 16, (0.5,), (0.5,), "bilinear", "squash", 1.0, (2, 2), "refuse")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int) -> tuple[Tensor, Tensor]:
    """Images whose every pixel is their number, so that a blend shows its share."""
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()
    return images, torch.arange(count) % 5


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_mixup_blends_images_and_labels_alike(count: int) -> None:
    images, labels = batch(count)
    kept = images.clone()
    mixed, targets = BatchMix(ClassificationConfig(mixup=0.8), 5)(images, labels, seeded(3))
    assert torch.equal(images, kept), "the images may be the cache's"
    assert mixed.shape == images.shape and targets.shape == (count, 5)
    assert torch.allclose(targets.sum(1), torch.ones(count))
    even = count // 2 * 2
    if count % 2:
        assert torch.equal(mixed[-1], images[-1]) and targets[-1, labels[-1]] == 1
    other = torch.arange(even - 1, -1, -1)
    shares = {
        round(float((mixed[i, 0, 0, 0] - other[i]) / (i - other[i])), 4) for i in range(even) if i != other[i]
    }
    if even:
        assert len(shares) == 1
        share = shares.pop()
        want = torch.zeros(even, 5)
        for i in range(even):
            want[i, labels[i]] += share
            want[i, labels[other[i]]] += 1 - share
        assert torch.allclose(targets[:even], want, atol=1e-3)


def test_cutmix_pastes_a_box_and_counts_its_pixels() -> None:
    images, labels = batch(4)
    mixed, targets = BatchMix(ClassificationConfig(cutmix=1.0), 5)(images, labels, seeded(1))
    pasted = float((mixed[0, 0] == 3).float().mean())
    assert 0 < pasted < 1 and set(mixed[0].unique().tolist()) == {0.0, 3.0}
    assert float(targets[0, 3]) == pytest.approx(pasted, abs=1e-6)


def test_draws_follow_the_generator_and_nothing_else() -> None:
    mix, images = BatchMix(ClassificationConfig(mixup=0.5, cutmix=0.5), 5), batch(6)
    random.seed(1)
    np.random.seed(1)
    state, numpy = random.getstate(), np.random.get_state()[1].copy()
    first = mix(*images, seeded(7))
    assert random.getstate() == state and np.array_equal(np.random.get_state()[1], numpy)
    random.seed(2)
    np.random.seed(2)
    again, other = mix(*images, seeded(7)), mix(*images, seeded(8))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_the_states_come_back_after_a_failure() -> None:
    state = random.getstate()
    with pytest.raises(RuntimeError), drawing_from(seeded()):
        random.random()
        raise RuntimeError
    assert random.getstate() == state


def test_rand_augment_changes_every_image_on_its_own() -> None:
    pixels = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=seeded())
    change = RandAugment("rand-m9-n2-mstd0.5", SPEC)
    first, again = change(pixels, seeded(1)), change(pixels, seeded(1))
    assert first.shape == pixels.shape and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, change(pixels, seeded(2)))
    assert sum(not torch.equal(one, two) for one, two in zip(first, pixels, strict=True)) >= 4


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="changes colours"):
        RandAugment("rand-m9", GRAY)
    for bad in ({"rand_augment": "strong"}, {"mixup": -1}, {"cutmix": -0.1}, {"label_smoothing": 1.0}):
        with pytest.raises(ValidationError):
            ClassificationConfig(**bad)
