"""Sizes under a budget: as near as can be, counted on the model, marked where they are not near."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import peftx
from peftx.bench import Outcome, Request, prepare
from peftx.bench.budget import TOLERANCE, _mixed, _neighbours, fit_row
from peftx.bench.cells import Row
from peftx.bench.grid import build_grid
from peftx.config.suite import Suite, parse_label
from peftx.errors import ConfigError
from peftx.plugins.registry import Registry
from peftx.runs import record

DEPTH, WIDTH = 24, 32


class Deep(nn.Module):
    """Many sites of two shapes, so that one step of a rank is more than the tolerance of a small budget."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(DEPTH // 2))
        self.down = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(DEPTH // 2))
        self.narrow = nn.ModuleList(nn.Linear(WIDTH, 8) for _ in range(DEPTH // 2))
        self.head = nn.Linear(WIDTH, 10)
        self.peftx_head = "head"


@pytest.fixture
def row(registry: Registry) -> Callable[..., Row]:
    def make(method: str) -> Row:
        suite = Suite.model_validate(
            {
                "task": "toy.sorting",
                "about": "x",
                "data": ["toy.points"],
                "methods": [parse_label(method)],
            }
        )
        return build_grid("x", suite, Request(suite="x"), registry).rows[0]

    return make


def trained(row: Row, model: nn.Module) -> int:
    """Parameters of the method as it is attached."""
    adapted = peftx.attach(model, row.method, config=row.plan.method_config)
    try:
        return adapted.counts().trainable
    finally:
        adapted.detach()


@pytest.mark.parametrize("budget", [4_500, 9_999, 20_000, 61_234, 100_000, 333_333])
@pytest.mark.parametrize("method", ["core.lora", "core.rslora", "core.dora"])
def test_two_sizes_are_mixed_until_the_budget_is_met(
    row: Callable[..., Row], registry: Registry, method: str, budget: int
) -> None:
    model = Deep()
    found = fit_row(row(f'{method} targets=["all-linear"]'), model, budget, registry)
    assert abs(found.trainable / budget - 1) <= TOLERANCE and found.off == ""
    assert trained(found, model) == found.trainable, "what was counted is what is attached"
    config = found.plan.method_config
    assert set(config.rank_pattern.values()) <= {config.rank + 1}


def test_sites_of_the_larger_size_are_spread_over_the_depth(
    row: Callable[..., Row], registry: Registry
) -> None:
    model = Deep()
    one, two = (
        peftx.explain(model, "core.lora", targets=["all-linear"], rank=rank).counts.trainable
        for rank in (2, 3)
    )
    found = fit_row(row('core.lora targets=["all-linear"]'), model, (one + two) // 2, registry)
    (pattern,) = found.plan.method_config.rank_pattern
    for name in ("up", "down"):
        larger = [int(part.split(".")[-1]) for part in pattern.split("|") if part.startswith(f"^{name}")]
        assert 4 <= len(larger) <= 8 and min(larger) < DEPTH // 4 <= max(larger)


def test_a_method_without_a_pattern_takes_the_nearest_size_and_is_marked(
    row: Callable[..., Row], registry: Registry
) -> None:
    model = Deep()
    found = fit_row(row('core.shira targets=["all-linear"]'), model, 20_000, registry)
    counts = {
        rank: peftx.explain(model, "core.shira", targets=["all-linear"], rank=rank).counts.trainable
        for rank in range(1, 20)
    }
    nearest = min(counts, key=lambda rank: abs(counts[rank] - 20_000))
    assert (found.plan.method_config.rank, found.trainable) == (nearest, counts[nearest])
    share = counts[nearest] / 20_000 - 1
    assert found.off == f"{100 * abs(share):.1f} % {'above' if share > 0 else 'below'} the budget"


def test_a_pattern_of_the_suite_is_left_alone(row: Callable[..., Row], registry: Registry) -> None:
    label = 'core.lora targets=["all-linear"] rank_pattern={"up.*":1}'
    found = fit_row(row(label), Deep(), 20_000, registry)
    assert found.plan.method_config.rank_pattern == {"up.*": 1} and found.trainable


def test_a_method_without_a_size_keeps_its_own(row: Callable[..., Row], registry: Registry) -> None:
    model = Deep()
    found = fit_row(row("core.full"), model, 100, registry)
    assert found.values == row("core.full").values
    assert found.off == (f"{found.trainable / 100:.1f} times the budget; its head alone has 330 parameters")
    near = fit_row(row("core.full"), model, found.trainable + 1, registry)
    assert near.off == ""
    assert (
        fit_row(row("core.head"), model, 660, registry).off
        == "50 % below the budget; it has no size to choose"
    )


def test_a_head_that_is_more_than_the_budget(row: Callable[..., Row], registry: Registry) -> None:
    found = fit_row(row('core.lora targets=["all-linear"]'), Deep(), 50, registry)
    assert found.plan.method_config.rank == 1
    assert found.off.endswith("times the budget; its head alone has 330 parameters")


def test_a_method_that_will_not_attach_is_told_by_its_cells(
    row: Callable[..., Row], registry: Registry
) -> None:
    found = fit_row(row('core.lora targets=["nowhere"]'), Deep(), 20_000, registry)
    assert (
        found.off.startswith("not counted: nothing in the model matches 'nowhere'")
        and found.trainable is None
    )


@given(
    step=st.integers(1, 1000),
    head=st.integers(0, 5000),
    budget=st.integers(1, 300_000),
    even=st.booleans(),
    most=st.integers(1, 300),
)
def test_neighbours_enclose_the_budget(step: int, head: int, budget: int, even: bool, most: int) -> None:
    def count(size: int) -> int:
        if even and size % 2:
            raise ConfigError("odd")
        return head + step * min(size, most)

    low, high = _neighbours(count, budget)
    sizes = [size for size in range(1, 400) if not (even and size % 2)]
    below = [size for size in sizes if count(size) <= budget]
    if not below:
        assert (low, high) == (None, sizes[0])
        return
    assert low is not None and count(low) == max(map(count, below))
    if high is not None:
        assert (high == low + 1 + even and count(high) > budget) or count(high) == count(low)
    else:
        assert count(low) == count(sizes[-1]), "there is nothing larger"


@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    share=st.floats(0, 1, exclude_max=True),
)
def test_a_mixture_misses_by_half_a_site_at_most(steps: list[int], share: float) -> None:
    below = {f"block.{i}.fc": 10 for i in range(len(steps))}
    above = {key: 10 + step for key, step in zip(below, steps, strict=True)}
    gap = int(share * sum(steps))
    chosen = _mixed(below, above, gap)
    filled = sum(
        above[key] - below[key] for key in below if f"^{key.replace('.', chr(92) + '.')}" in chosen.split("|")
    )
    assert abs(filled - gap) <= max(steps) / 2 + 1


def test_keys_that_end_alike_are_told_apart(row: Callable[..., Row], registry: Registry) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.deep = nn.ModuleDict({"fc": nn.Linear(8, 8)})
            self.head = nn.Linear(8, 2)
            self.peftx_head = "head"

    model = Nested()
    # 18 of the head, and one more rank at one of two sites of 16 a rank
    found = fit_row(row('core.lora targets=["all-linear"]'), model, 18 + 3 * 16, registry)
    assert found.trainable == trained(found, model) == 18 + 3 * 16


def test_a_bench_under_a_budget(
    bench: Callable[..., Outcome],
    asked: Callable[..., Request],
    registry: Registry,
    inline: None,
    tmp_path: Any,
) -> None:
    values = {
        "methods": ({"name": "core.head"}, {"name": "core.lora"}),
        "data": ({"name": "toy.points", "spread": 2.0},),
        "seeds": 1,
        "budget": 150,
    }
    prepared = prepare(asked(**values), registry)
    assert [(row.label, row.trainable) for row in prepared.rows] == [
        ("core.head", 51),
        ("core.lora", 51 + 24 * 4),
    ]
    outcome = bench(**values)
    lora = record.read(tmp_path / "out" / "toy.points-spread=2" / "toy.net" / "core.lora" / "seed0")["rows"][
        0
    ]
    assert (lora["options"]["rank"], lora["trainable"]) == (4, 147)
    assert (
        "core.head on toy.points spread=2: 66 % below the budget; it has no size to choose" in outcome.notes
    )
    assert [one.trainable for one in sorted(outcome.boards[0].standings, key=lambda one: one.method)] == [
        51,
        147,
    ]
