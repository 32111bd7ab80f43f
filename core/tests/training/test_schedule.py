"""The learning rate: warm-up, cosine, constant, and their edges."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.training.schedule import learning_rate_factor


@given(
    total=st.integers(1, 500),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["cosine", "constant"]),
    data=st.data(),
)
def test_the_factor_is_positive_and_at_most_one(
    total: int, warmup: float, schedule: str, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, total - 1))
    factor = learning_rate_factor(step, total, warmup, schedule)
    assert 0 < factor <= 1


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_it_rises_in_a_straight_line_and_peaks_once_warm(schedule: str) -> None:
    rising = [learning_rate_factor(step, 100, 0.1, schedule) for step in range(11)]
    steps = [b - a for a, b in pairwise(rising)]
    assert rising[10] == 1.0
    assert steps == pytest.approx([1 / 11] * 10)


def test_cosine_halves_midway_and_constant_stays() -> None:
    assert learning_rate_factor(50, 100, 0.0, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(99, 100, 0.0, "constant") == 1.0


def test_a_single_step_uses_the_whole_rate() -> None:
    assert learning_rate_factor(0, 1, 0.1, "cosine") == 1.0
