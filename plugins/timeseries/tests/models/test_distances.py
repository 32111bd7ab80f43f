"""Distances between samples, against loops over every step in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from peftx_timeseries.models import distances
from peftx_timeseries.models.distances import dtw, euclidean


def samples(
    count: int, channels: int, length: int, seed: int, *, equal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ends = torch.full((count,), length) if equal else torch.randint(1, length + 1, (count,), generator=draw)
    x = torch.randn(count, channels, length, generator=draw, dtype=torch.float64)
    return x * (torch.arange(length) < ends[:, None])[:, None], ends


def warped(a: np.ndarray, b: np.ndarray, window: float) -> float:
    """The textbook's table, step by step; a (n, M), b (m, M)."""
    n, m = len(a), len(b)
    radius = max(math.ceil(window * max(n, m) - 1e-9), abs(n - m))
    table = np.full((n + 1, m + 1), np.inf)
    table[0, 0] = 0.0
    for i in range(n):
        for j in range(m):
            if abs(i - j) <= radius:
                best = min(table[i, j + 1], table[i + 1, j], table[i, j])
                table[i + 1, j + 1] = ((a[i] - b[j]) ** 2).sum() + best
    return float(table[n, m])


@pytest.mark.parametrize("window", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("equal", [True, False])
def test_warping_is_that_of_the_textbook(window: float, equal: bool) -> None:
    (a, ends_a), (b, ends_b) = samples(5, 3, 14, 0, equal=equal), samples(7, 3, 14, 1, equal=equal)
    found = dtw(a, b, ends_a, ends_b, window)
    expected = [
        [warped(x[:, :n].T.numpy(), y[:, :m].T.numpy(), window) for y, m in zip(b, ends_b, strict=True)]
        for x, n in zip(a, ends_a, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_no_window_is_no_warping_and_any_window_never_farther() -> None:
    (a, ends), (b, _) = samples(4, 2, 20, 2, equal=True), samples(6, 2, 20, 3, equal=True)
    full = [dtw(a, b, ends, torch.full((6,), 20), window) for window in (0.0, 0.1, 0.5, 1.0)]
    torch.testing.assert_close(full[0], euclidean(a, b))
    torch.testing.assert_close(full[0], torch.cdist(a.flatten(1), b.flatten(1)).square())
    assert all((after <= before + 1e-12).all() for before, after in pairwise(full))
    assert (full[3] < full[0]).all()


def test_a_shifted_wave_is_near_when_time_may_warp() -> None:
    t = torch.linspace(0, 4, 80, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * t)[None, None]
    late, ends = torch.sin(2 * math.pi * (t - 0.1))[None, None], torch.tensor([80])
    assert dtw(wave, late, ends, ends, 0.1) < 0.1 * euclidean(wave, late)


def test_parts_and_padding_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (a, ends_a), (b, ends_b) = samples(9, 2, 12, 4), samples(5, 2, 12, 5)
    whole = dtw(a, b, ends_a, ends_b, 0.2)
    monkeypatch.setattr(distances, "CHUNK", 1)
    torch.testing.assert_close(dtw(a, b, ends_a, ends_b, 0.2), whole)
    behind = torch.arange(12) >= ends_a[:, None]
    torch.testing.assert_close(dtw(a + 1e3 * behind[:, None], b, ends_a, ends_b, 0.2), whole)
    assert torch.isinf(dtw(a, b, torch.zeros(9, dtype=torch.long), ends_b, 0.2)).all()
