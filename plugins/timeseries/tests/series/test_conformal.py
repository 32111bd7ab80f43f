"""Split conformal bounds: the ranks of the definition, the coverage they promise, and what too few errors give."""

from __future__ import annotations

import numpy as np
import pytest

from peftx_timeseries.series.conformal import LEVELS, coverage, offsets


def test_bounds_are_the_ranks_of_the_definition() -> None:
    residuals = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))[:, None]  # 1 .. 19
    low, high = offsets(residuals, 0.8)
    assert (low[0], high[0]) == (2.0, 18.0)  # k = 20 * 0.1, l = 20 * 0.9
    low, high = offsets(residuals, 0.9)
    assert (low[0], high[0]) == (1.0, 19.0)
    assert np.isnan(offsets(residuals, 0.95)).all()  # k = 0.5: no bound rather than one that is too narrow


def test_missing_errors_count_nowhere() -> None:
    draw = np.random.default_rng(0)
    residuals = draw.normal(size=(60, 3))
    residuals[draw.random(residuals.shape) < 0.3] = np.nan
    residuals[:, 2] = np.nan
    low, high = offsets(residuals, 0.8)
    for column in (0, 1):
        alone = residuals[np.isfinite(residuals[:, column]), column]
        assert (low[column], high[column]) == tuple(float(part[0]) for part in offsets(alone[:, None], 0.8))
    assert np.isnan([low[2], high[2]]).all() and coverage(residuals[:, 2:], low[2:], high[2:]) is None


@pytest.mark.parametrize("level", LEVELS[:6])
def test_new_errors_of_the_same_kind_lie_within_as_often_as_promised(level: float) -> None:
    draw = np.random.default_rng(1)
    held = []
    for _ in range(300):  # over draws of the errors too: that is what is promised
        residuals = draw.exponential(size=(99, 1))  # lopsided on purpose
        low, high = offsets(residuals, level)
        held.append(coverage(draw.exponential(size=(200, 1)), low, high))
    # 99 errors: the ranks are whole numbers, and the expectation is the level itself
    assert np.mean(held) == pytest.approx(level, abs=0.012)
