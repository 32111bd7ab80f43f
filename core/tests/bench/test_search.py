"""Which rate a search chooses, and when it chooses none."""

from __future__ import annotations

from typing import Any

import pytest

from peftx.bench.cells import Point
from peftx.bench.search import Choice
from peftx.bench.search import choose as choose_point
from peftx.bench.states import DIVERGED, DONE, FAILED, UNFINISHED, WAITING, State


def choose(states: dict[float, State]) -> Choice:
    """A search for a rate alone."""
    return choose_point({Point(rate): state for rate, state in states.items()})


def done(value: float | None, loss: float | None = 1.0, **more: Any) -> State:
    return State(DONE, value=value, loss=loss, metric="accuracy", **more)


def test_the_best_validation_score_wins() -> None:
    assert choose({0.1: done(90.0), 0.01: done(95.0), 0.001: done(80.0)}).rate == 0.01


def test_the_lowest_wins_where_lower_is_better() -> None:
    assert choose({0.1: done(3.0, higher=False), 0.01: done(4.0, higher=False)}).rate == 0.1


def test_equal_scores_are_told_apart_by_the_loss_then_the_smaller_rate() -> None:
    assert choose({0.1: done(95.0, 0.3), 0.01: done(95.0, 0.4), 1.0: done(90.0, 0.1)}).rate == 0.1
    assert choose({0.1: done(95.0, 0.3), 0.01: done(95.0, 0.3)}).rate == 0.01
    assert choose({0.01: done(95.0, None), 0.1: done(95.0, 0.3)}).rate == 0.1


def test_a_rate_that_diverged_is_out() -> None:
    found = choose({0.1: State(DIVERGED, "the loss became nan"), 0.01: done(20.0)})
    assert found.rate == 0.01 and not found.open


def test_all_rates_diverged() -> None:
    found = choose(
        {0.1: State(DIVERGED, "the loss became nan at step 3: try a lower lr"), 1.0: State(DIVERGED, "x")}
    )
    assert found.rate is None and found.why_not == "every rate diverged (the loss became nan at step 3)"


def test_a_run_that_failed_leaves_the_search_incomplete() -> None:
    found = choose({0.1: done(99.0), 0.01: State(FAILED, "the process ended with signal 9")})
    assert found.rate is None
    assert found.why_not == "its search is incomplete: lr=0.01 failed (the process ended with signal 9)"


@pytest.mark.parametrize("word", [WAITING, UNFINISHED])
def test_the_search_is_open_until_the_last_run(word: str) -> None:
    found = choose({0.1: done(99.0), 0.01: State(word)})
    assert found.open and found.rate is None


def test_without_validation_there_is_nothing_to_choose_by() -> None:
    found = choose({0.1: done(None), 0.01: done(None)})
    assert "no validation score" in found.why_not


def test_a_rate_at_the_edge_is_told() -> None:
    one, two, three = done(90.0), done(91.0), done(92.0)
    assert choose({0.1: one, 0.01: three, 0.001: two}).at_edge == ""
    assert choose({0.1: three, 0.01: one, 0.001: two}).at_edge == "largest"
    assert choose({0.1: one, 0.01: two, 0.001: three}).at_edge == "smallest"
    assert choose({0.1: one}).at_edge == ""


def test_a_weight_decay_is_chosen_with_the_rate() -> None:
    states = {
        Point(rate, decay): done(value)
        for rate, decay, value in ((0.1, 0.0, 90.0), (0.1, 1e-4, 91.0), (0.01, 0.0, 92.0), (0.01, 1e-4, 92.0))
    }
    found = choose_point(states)
    assert found.point == Point(0.01, 0.0), "of equal ones the smaller weight decay"
    assert found.at_edge == "smallest" and found.rate == 0.01
    assert [(one["rate"], one["weight_decay"]) for one in found.to_dict()] == [
        (0.01, 0.0),
        (0.01, 1e-4),
        (0.1, 0.0),
        (0.1, 1e-4),
    ]
    broken = choose_point(states | {Point(0.1, 0.01): State(FAILED, "by chance")})
    assert broken.why_not == "its search is incomplete: lr=0.1 weight_decay=0.01 failed (by chance)"
