"""What is typed for a search and a budget, and the names of choices."""

from __future__ import annotations

import pytest

from peftx.bench.request import Request, parse_budget, parse_search


@pytest.mark.parametrize(
    ("text", "rates"),
    [("lr", ()), ("lr=1e-3,1e-2", (1e-3, 1e-2)), (" lr = 3e-2, 1e-3 ", (1e-3, 3e-2)), ("lr=1", (1.0,))],
)
def test_a_search(text: str, rates: tuple[float, ...]) -> None:
    assert parse_search(text) == ("lr", rates)


def test_a_search_of_weight_decays() -> None:
    assert parse_search("weight_decay") == ("weight_decay", ())
    assert parse_search("weight-decay=1e-4,0") == ("weight_decay", (0.0, 1e-4))
    assert Request(suite="x", search_decay=(0.1, 0.0)).search_decay == (0.0, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank=1,2", r"only the learning rate is searched, .* \(got rank=1,2\)"),
        ("lr=", r"only the learning rate is searched"),
        ("lr=fast", r"a learning rate is a number above 0 \(got fast\)"),
        ("lr=1e-3,,1e-2", r"a number above 0"),
        ("lr=0", r"a number above 0 \(got 0\)"),
        ("lr=-1", r"a number above 0 \(got -1\)"),
        ("lr=nan", r"a number above 0 \(got nan\)"),
        ("lr=1e-2,0.01", r"0.01 stands there twice"),
        ("weight_decay=much", r"a weight decay is a number of at least 0 \(got much\)"),
        ("weight-decay=-1", r"a weight decay is a number of at least 0 \(got -1\)"),
    ],
)
def test_what_is_no_search(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_search(text)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("params=50000", 50_000),
        ("params=50_000", 50_000),
        ("params=50k", 50_000),
        ("params = 1.5M", 1_500_000),
        ("params=1e5", 100_000),
    ],
)
def test_a_budget(text: str, budget: int) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text",
    ["params=many", "params", "50000", "memory=3", "params=0", "params=-5", "params=inf", "params=nan", ""],
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="trainable parameter"):
        parse_budget(text)


def test_rates_of_a_request_are_in_order_and_an_empty_search_stays_one() -> None:
    assert Request(suite="x", search=(0.1, 0.01)).search == (0.01, 0.1)
    assert Request(suite="x", search=()).search == ()
    assert Request(suite="x").search is None
