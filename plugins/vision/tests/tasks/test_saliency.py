"""Maps of where a score comes from: closed forms, completeness, and the place that decides, for many models."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import peftx
from peftx_vision.models.vit_micro import build_vit_micro
from peftx_vision.tasks.saliency import attributions, evidence, grid_of


def test_a_linear_score_gives_each_value_its_own_term() -> None:
    weights, image = torch.randn(2, 3, 8, 8).unbind()
    found = attributions(lambda x: (x * weights).sum((1, 2, 3)), image, steps=3, noise=0)
    torch.testing.assert_close(found, weights * image)
    cells = evidence(lambda x: (x * weights).sum((1, 2, 3)), image, (2, 4), steps=5, noise=0)
    sums = (weights * image).sum(0).view(2, 4, 4, 2).sum((1, 3)).clamp(min=0)
    torch.testing.assert_close(cells, sums / sums.max())


def test_a_square_is_exact_by_the_midpoint_rule() -> None:
    image = torch.randn(1, 4, 4)
    torch.testing.assert_close(attributions(lambda x: (x**2).sum((1, 2, 3)), image, 4, 0), image**2)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "vit_micro"])
def test_it_is_complete_and_leaves_the_model_alone(name: str) -> None:
    torch.manual_seed(0)
    model = (
        build_vit_micro(3)
        if name == "vit_micro"
        else timm.create_model(name, num_classes=3, **({"img_size": 64} if name == "test_vit" else {}))
    )
    model.eval()
    image = torch.randn(3, 32, 32) if name == "vit_micro" else torch.randn(3, 64, 64)

    def score(x: Tensor) -> Tensor:
        return model(x)[:, 1]

    # Sundararajan et al. 2017, proposition 1: the attributions add up to the difference
    total = float(attributions(score, image, steps=64, noise=0).sum())
    with torch.no_grad():
        ends = score(torch.stack([image, torch.zeros_like(image)]))
    assert total == pytest.approx(float(ends[0] - ends[1]), rel=0.02, abs=2e-3)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(evidence(score, image, (4, 4)), evidence(score, image, (4, 4)))


def test_ways_from_noise_see_what_a_way_from_one_colour_does_not() -> None:
    """A ConvNeXt normalises its first convolution over channels: from a flat baseline its gradients vanish."""
    torch.manual_seed(0)
    model, image = timm.create_model("test_convnext", num_classes=3).eval(), torch.randn(3, 64, 64)

    def score(x: Tensor) -> Tensor:
        return model(x)[:, 1]

    flat, noisy = (float(attributions(score, image, 64, noise).sum()) for noise in (0.0, 0.5))
    with torch.no_grad():
        here, there = score(torch.stack([image, torch.zeros_like(image)])).tolist()
        starts = float(score(0.5 * torch.randn(64, *image.shape)).mean())
    assert abs(flat) < 0.01 * abs(here - there), "all of the difference is made in an instant"
    assert noisy == pytest.approx(here - starts, rel=0.5) and abs(noisy) > 1e-3


def test_nothing_and_no_number_are_empty_maps() -> None:
    image = torch.randn(3, 8, 8)
    assert not evidence(lambda x: -(x**2).sum((1, 2, 3)), image, (2, 2)).any()
    assert not evidence(lambda x: (x * float("nan")).sum((1, 2, 3)), image, (2, 2)).any()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "lr"), [("core.head", 3e-2), ("vision.vpt_shallow", 3e-2)])
def test_the_square_that_decides_is_found_with_every_kind_of_adapter(method: str, lr: float) -> None:
    """The pointing game: a square in noise, whose colour is the class, holds the largest value of the map."""

    def draw(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed)
        images = torch.rand(count, 3, 32, 32, generator=g) * 0.6 - 0.3
        labels, places = (
            torch.randint(3, (count,), generator=g),
            torch.randint(0, 26, (count, 2), generator=g),
        )
        for image, label, (row, column) in zip(images, labels, places.tolist(), strict=True):
            image[:, row : row + 6, column : column + 6] = -0.6
            image[label, row : row + 6, column : column + 6] = 0.9
        return images, labels, places

    torch.manual_seed(0)
    adapted = peftx.attach(build_vit_micro(3), method)
    optimizer = torch.optim.AdamW(adapted.param_groups(lr))
    adapted.bind(optimizer, total_steps=80)
    for step in range(80):
        images, labels, _ = draw(32, 1000 + step)
        nn.functional.cross_entropy(adapted.model.train()(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    model, hits = adapted.model.eval(), 0
    images, labels, places = draw(20, 7)
    for image, label, (row, column) in zip(images, labels.tolist(), places.tolist(), strict=True):
        cells = evidence(lambda x, label=label: model(x)[:, label] - model(x).mean(1), image, (8, 8))
        at, across = divmod(int(cells.argmax()), 8)
        hits += 4 * at < row + 6 and 4 * at + 4 > row and 4 * across < column + 6 and 4 * across + 4 > column
    assert hits >= 15


def test_a_grid_has_a_cell_a_patch_and_no_more_than_sixteen() -> None:
    assert grid_of(32, 32, (4, 4)) == (8, 8)
    assert grid_of(224, 224, (16, 16)) == (14, 14)
    assert grid_of(224, 112, (4, 4)) == (16, 16)
    assert grid_of(5, 3, (7, 7)) == (1, 1)
