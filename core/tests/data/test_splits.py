"""Seeded stratified draws: exact values (the same on every machine), proportions, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftx.data.splits import limit, permutation, split, stratified_order
from peftx.errors import DataError


def test_the_permutation_is_the_same_for_ever() -> None:
    assert permutation(10, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert permutation(10, 7).tolist() == [6, 3, 4, 9, 0, 2, 8, 7, 5, 1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_every_beginning_keeps_the_proportions(labels: list[int], seed: int) -> None:
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    drawn = np.asarray(labels)[order]
    classes = sorted(set(labels))
    assert sorted(set(drawn[: len(classes)].tolist())) == classes
    for label in classes:
        share = labels.count(label) / len(labels)
        held = np.cumsum(drawn == label)
        expected = share * np.arange(1, len(labels) + 1)
        assert np.all(np.abs(held - expected) <= len(classes))


@given(st.integers(20, 300), st.floats(0.1, 0.4), st.floats(0.1, 0.4), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_parts_cover_everything_once(count: int, first: float, second: float, seed: int) -> None:
    labels = [index % 4 for index in range(count)]
    parts = split(labels, (first, second), seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert [len(part) for part in parts[:2]] == [round(first * count), round(second * count)]
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)
    assert {labels[row] for row in parts[2]} == {0, 1, 2, 3}


def test_the_first_part_does_not_depend_on_the_second() -> None:
    labels = [index % 3 for index in range(100)]
    assert split(labels, (0.2, 0.1), 5)[0].tolist() == split(labels, (0.2, 0.4), 5)[0].tolist()


def test_another_seed_is_another_split() -> None:
    labels = [0, 1] * 50
    assert split(labels, (0.2,), 0)[0].tolist() != split(labels, (0.2,), 1)[0].tolist()


def test_a_smaller_draw_lies_inside_a_larger_one() -> None:
    labels = [0] * 70 + [1] * 30
    small, large = limit(labels, 10, 0), limit(labels, 40, 0)
    assert set(small.tolist()) < set(large.tolist())
    assert [labels[row] for row in large].count(1) in (12, 13)
    assert limit(labels, None, 0).tolist() == limit(labels, 1000, 0).tolist() == list(range(100))


def test_a_balanced_few_shot_draw_is_balanced() -> None:
    labels = [index % 10 for index in range(1000)]
    drawn = [labels[row] for row in limit(labels, 50, 3)]
    assert [drawn.count(label) for label in range(10)] == [5] * 10


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="limit_train 1 is less than one sample for each of the 2 classes"):
        limit([0, 1, 0, 1], 1, 0)
    with pytest.raises(DataError, match=r"cannot hold out a fraction of 0\.1 of 4 samples"):
        split([0, 1, 0, 1], (0.1,), 0)
    with pytest.raises(DataError, match="class 'cat' has only 2 samples"):
        split([0, 0] + [1] * 20, (0.2, 0.2), 0, ("cat", "dog"))
    with pytest.raises(DataError, match="class number 0 has only 1 sample:"):
        split([0] + [1] * 20, (0.2,), 0)
