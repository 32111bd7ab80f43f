"""Means, spreads and intervals against values worked out by hand or taken from printed tables."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.results import statistics
from peftx.results.statistics import Interval, bootstrap_interval, mean, median, sd, t_interval, t_quantile


def test_mean_and_spread_by_hand() -> None:
    assert mean([2.0, 4.0, 9.0]) == 5.0
    assert sd([2.0, 4.0, 9.0]) == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert sd([5.0]) is None
    assert median([3, None, 1, 2]) == 2 and median([1, 2]) == 1.5 and median([None]) is None
    with pytest.raises(ValueError):
        mean([])


def test_equal_values_have_no_spread_at_all() -> None:
    assert mean([0.1] * 3) == 0.1 and sd([0.1] * 3) == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6), st.randoms())
def test_the_order_of_the_seeds_changes_nothing(values: list[float], rng: random.Random) -> None:
    shuffled = rng.sample(values, len(values))
    assert mean(values) == mean(shuffled) and sd(values) == sd(shuffled)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # Student's t, two-sided 95 %, as every table prints it
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (9, 2.262),
        (10, 2.228),
        (30, 2.042),
        (120, 1.980),
    ],
)
def test_quantiles_of_student(degrees: int, quantile: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-4)


def test_quantiles_of_student_with_one_and_two_degrees_have_closed_forms() -> None:
    for p in (0.6, 0.9, 0.975, 0.999):
        assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9)
        assert t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), rel=1e-9)


def test_the_interval_of_student_by_hand() -> None:
    """Mean 2, sd 1, n 3: half a width of 4.303 / sqrt(3)."""
    found = t_interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)


def test_one_value_has_no_interval() -> None:
    assert bootstrap_interval([1.0]) is None and t_interval([1.0]) is None and t_interval([]) is None


def test_the_bootstrap_is_the_same_every_time() -> None:
    values = [0.3, -0.1, 0.4, 0.2]
    found = bootstrap_interval(values)
    statistics._draws.cache_clear()
    random.seed(5)  # the process's own generator has no part in it
    assert bootstrap_interval(values) == found
    assert statistics.RESAMPLES == 10_000


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [-1.0, 0.5, 0.7, 3.0], [0.2, 0.1, 0.9, 0.4, 0.35]])
def test_the_bootstrap_agrees_with_all_resamples_there_are(values: list[float]) -> None:
    """n ** n resamples are equally likely: the sampled distribution of the mean must be close to the exact one."""
    n = len(values)
    exact = sorted(math.fsum(values[i] for i in draw) / n for draw in itertools.product(range(n), repeat=n))
    sampled = sorted(math.fsum(values[i] for i in draw) / n for draw in statistics._draws(n))
    for at in sorted(set(exact)):
        below = sum(value <= at for value in exact) / len(exact)
        assert sum(value <= at for value in sampled) / len(sampled) == pytest.approx(below, abs=0.02)
    found = bootstrap_interval(values)
    assert found is not None and exact[0] <= found.low <= found.high <= exact[-1]


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=3, unique=True))
def test_of_three_values_the_bootstrap_is_their_range(values: list[float]) -> None:
    """One resample in 27 is three times the smallest, which is more than the 2.5 % that are cut off. So the interval
    covers a mean of zero unless all three have one sign: with a symmetric distribution 75 % of the time, not 95 %."""
    found = bootstrap_interval(values)
    assert found is not None
    assert found.low == pytest.approx(min(values), abs=1e-12) and found.high == pytest.approx(
        max(values), abs=1e-12
    )


def test_constant_differences_have_a_point_as_interval() -> None:
    assert bootstrap_interval([0.0, 0.0, 0.0]) == Interval(0.0, 0.0)
    assert t_interval([0.5, 0.5]) == Interval(0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "bootstrap"), [(3, 0.75), (5, 0.83), (10, 0.90)])
def test_coverage_with_few_seeds(n: int, bootstrap: float) -> None:
    """The figures of docs/results.md: how often a 95 % interval of n normal differences holds their true mean."""
    rng = random.Random(1)
    samples = [[rng.gauss(0, 1) for _ in range(n)] for _ in range(400)]
    hits = {"bootstrap": 0, "student": 0}
    for sample in samples:
        for name, found in (("bootstrap", bootstrap_interval(sample)), ("student", t_interval(sample))):
            assert found is not None
            hits[name] += found.low <= 0 <= found.high
    print({name: count / len(samples) for name, count in hits.items()})
    assert hits["bootstrap"] / 400 == pytest.approx(bootstrap, abs=0.04)
    assert hits["student"] / 400 == pytest.approx(0.95, abs=0.03)
