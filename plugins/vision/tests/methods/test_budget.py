from __future__ import annotations

import math

import pytest
import torch

from peftx_vision.methods.budget import Importance, allocate, official_budget, step_budget


def test_the_paper_s_example() -> None:
    assert allocate(40, [0.5, 0.3, 0.2], [10, 20, 40]) == [10, 18, 12]


def test_nothing_is_lost_and_nobody_gets_more_than_its_size() -> None:
    torch.manual_seed(0)
    for _ in range(300):
        maps = int(torch.randint(1, 9, ()))
        sizes = torch.randint(1, 500, (maps,)).tolist()
        scores = (torch.rand(maps).square() * (torch.rand(maps) > 0.3)).tolist()
        budget = int(torch.randint(0, sum(sizes) + 50, ()))
        kept = allocate(budget, scores, sizes)
        assert sum(kept) == min(budget, sum(sizes))
        assert all(0 <= k <= n for k, n in zip(kept, sizes, strict=True))


def test_a_larger_score_never_gets_less() -> None:
    kept = allocate(1000, [0.1, 0.2, 0.2, 0.5], [10_000] * 4)
    assert kept == [100, 200, 200, 500]


def test_uniform_scores_and_sizes() -> None:
    assert allocate(30, [0.25] * 3, [100] * 3) == [10, 10, 10]
    assert sorted(allocate(31, [0.25] * 3, [100] * 3)) == [10, 10, 11]
    # at the scale of a large model every entry is counted
    sizes = [768 * 3072] * 72
    kept = allocate(33_973_863, [1e-12] * 72, sizes)
    assert sum(kept) == 33_973_863 and max(kept) - min(kept) <= 1


def test_without_scores_all_maps_are_equally_dense() -> None:
    assert allocate(35, [0.0, 0.0, 0.0], [10, 20, 40]) == [5, 10, 20]
    assert allocate(20, [0.0, 1.0, 0.0], [10, 12, 30]) == [2, 12, 6]  # the rest goes to those without


def test_scores_of_any_scale() -> None:
    for scale in (1e-300, 1e-30, 1e30):
        assert allocate(40, [0.5 * scale, 0.3 * scale, 0.2 * scale], [10, 20, 40]) == [10, 18, 12]
    assert allocate(7, [], []) == []
    with pytest.raises(ValueError, match="finite"):
        allocate(5, [math.nan, 1.0], [10, 10])


def test_the_curve_of_the_budget() -> None:
    assert step_budget(0.0, 0.01, 0.8, 1_000_000) == 990_000
    assert step_budget(1.0, 0.01, 0.8, 1_000_000) == 200_000
    assert step_budget(7.0, 0.01, 0.8, 1_000_000) == 200_000
    assert step_budget(0.5, 0.01, 0.8, 1_000_000) == 298_750
    falling = [step_budget(i / 50, 0.01, 0.8, 12_345) for i in range(51)]
    assert falling == sorted(falling, reverse=True) and falling[-1] == 2469


def test_the_official_curve() -> None:
    """N = 1e6, from 0.01 to 0.8 in 100 epochs; the last stays a little above the target."""

    def budget(epoch: int, warmup: int = 0, final: int = 0) -> int | None:
        return official_budget(epoch, 100, 0.01, 0.8, 1_000_000, warmup, final)

    assert [budget(e) for e in (1, 25, 50, 75, 99)] == [966_536, 533_281, 298_750, 212_343, 200_000]
    assert budget(0) is None
    assert official_budget(99, 100, 0.01, 0.8, 10_000_000_000, 0, 0) > 2_000_000_000
    assert [budget(e, warmup=3) for e in (1, 2, 3)] == [None] * 3
    assert budget(4, warmup=3) == step_budget(1 / 97, 0.01, 0.8, 1_000_000)
    assert budget(96, final=5) == budget(99, final=5) == 200_000


def test_importance_by_hand() -> None:
    importance = Importance(torch.zeros(2))
    theta = torch.tensor([1.0, -2.0])
    importance.observe(theta, torch.tensor([0.5, 0.25]), 0.85)
    torch.testing.assert_close(importance.mean, torch.tensor([0.075, 0.075]))
    torch.testing.assert_close(importance.spread, torch.tensor([0.06375, 0.06375]))
    importance.observe(theta, torch.tensor([0.0, 1.0]), 0.85)
    torch.testing.assert_close(importance.mean, torch.tensor([0.06375, 0.36375]))
    torch.testing.assert_close(importance.spread, torch.tensor([0.06375, 0.299625]))
    assert float(importance.score()) == pytest.approx((0.06375**2 + 0.36375 * 0.299625) / 2)


def test_a_broken_gradient_counts_as_none() -> None:
    theta = torch.tensor([1.0, 2.0, 3.0])
    found = []
    for gradient in (torch.tensor([math.nan, 1.0, math.inf]), torch.tensor([0.0, 1.0, 0.0])):
        importance = Importance(theta)
        importance.observe(theta, gradient, 0.85)
        found.append((importance.mean, importance.spread))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    importance.observe(theta, None, 0.85)
    torch.testing.assert_close(importance.mean, found[1][0])
