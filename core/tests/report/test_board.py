"""A board's table, and mean ranks over several."""

from __future__ import annotations

import json
from typing import Any

from peftx.report.board import Board, Standing, mean_ranks, rank_table


def board(*standings: Standing, data: str = "a", higher: bool = True, **changes: Any) -> Board:
    values: dict[str, Any] = {
        "task": "t.c",
        "model": "m",
        "primary": "accuracy",
        "unit": "%",
        "split": "test",
    }
    return Board(data=data, higher_is_better=higher, standings=standings, **(values | changes))


def standing(method: str, mean: float | None, label: str = "", **changes: Any) -> Standing:
    values = () if mean is None else (mean,)
    return Standing(method, label or method, seeds=(0,) * len(values), values=values, mean=mean, **changes)


def test_the_table_has_a_dash_for_what_is_unknown_and_no_empty_columns() -> None:
    one = board(
        standing("core.lora", 97.5, sd=0.25, rank=1, pareto=True, trainable=1234, seconds=2.0),
        standing("core.dora", 96.0, rank=2, trainable=2000),
        standing("core.full", None, failed=1, cause="NaN"),
        standing("Theirs", 99.0, published="a paper, table 1"),
    )
    lines = one.table().render().splitlines()
    heads = lines[0].split()
    assert heads == [
        "rank",
        "method",
        "accuracy",
        "%",
        "sd",
        "n",
        "trainable",
        "time",
        "front",
        "failed",
        "published",
    ]
    assert lines[2].split() == ["1", "core.lora", "97.50", "0.25", "1", "1,234", "2.0", "s", "*", "-", "-"]
    assert lines[3].split() == ["2", "core.dora", "96.00", "-", "1", "2,000", "-", "-", "-", "-"]
    assert lines[4].split() == ["-", "core.full", "-", "-", "0", "-", "-", "-", "1", "-"]
    assert lines[5].split() == [
        "-",
        "Theirs",
        "99.00",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
        "a",
        "paper,",
        "table",
        "1",
    ]


def test_figures_that_are_no_percentages_have_four_digits() -> None:
    one = board(standing("core.lora", 0.123456), unit="nats", primary="loss", higher=False)
    assert "0.1235" in one.table().render()
    assert one.title == "t.c on a with m: test loss, nats (lower is better)"


def test_a_board_is_plain_data() -> None:
    found = json.loads(json.dumps(board(standing("core.lora", 97.5, settings={"option.rank": 8})).to_dict()))
    assert found["standings"][0]["settings"] == {"option.rank": 8} and found["split"] == "test"


def test_mean_ranks_by_hand() -> None:
    """a: lora 1, dora 2, full 3 among the common ones; b: full 1, lora 2, dora 2. snell is on one board only."""
    one = board(
        standing("core.snell", 99.0),
        standing("core.lora", 98.0),
        standing("core.dora", 97.0),
        standing("core.full", 96.0),
    )
    other = board(
        standing("core.full", 80.0), standing("core.lora", 70.0), standing("core.dora", 70.0), data="b"
    )
    found = mean_ranks([one, other])
    assert [(m.label, m.rank, m.ranks) for m in found] == [
        ("core.lora", 1.5, (1, 2)),
        ("core.dora", 2.0, (2, 2)),
        ("core.full", 2.0, (3, 1)),
    ]
    lines = rank_table(found, [one, other]).render().splitlines()
    assert lines[0].split() == ["method", "mean", "rank", "a", "b"]
    assert lines[2].split() == ["core.lora", "1.50", "1", "2"]


def test_each_board_has_its_own_direction() -> None:
    one = board(standing("core.lora", 1.0), standing("core.dora", 2.0))
    other = board(standing("core.lora", 1.0), standing("core.dora", 2.0), data="b", higher=False)
    assert [m.rank for m in mean_ranks([one, other])] == [1.5, 1.5]


def test_a_searched_rate_does_not_part_a_method_from_itself() -> None:
    one = board(standing("core.lora", 1.0, settings={"train.lr": 0.1}), standing("core.dora", 2.0))
    other = board(
        standing("core.lora", 1.0, settings={"train.lr": 0.01}), standing("core.dora", 2.0), data="b"
    )
    assert [m.label for m in mean_ranks([one, other])] == ["core.dora", "core.lora"]


def test_several_settings_of_a_method_take_part_where_they_are_on_every_board() -> None:
    def rank(size: int, mean: float, label: str) -> Standing:
        return standing("core.lora", mean, label, settings={"option.rank": size})

    one = board(
        rank(4, 1.0, "core.lora rank=4"), rank(8, 2.0, "core.lora rank=8"), standing("core.dora", 3.0)
    )
    other = board(rank(8, 1.0, "core.lora"), standing("core.dora", 3.0), data="b")
    found = mean_ranks([one, other])
    assert [(m.label, m.ranks) for m in found] == [("core.dora", (1, 1)), ("core.lora rank=8", (2, 2))]


def test_published_and_unscored_rows_are_not_averaged() -> None:
    rows = (standing("core.lora", 1.0), standing("Theirs", 9.0, published="p"), standing("core.full", None))
    found = mean_ranks([board(*rows), board(*rows, data="b")])
    assert [m.label for m in found] == ["core.lora"]


def test_one_board_has_no_mean_ranks() -> None:
    assert mean_ranks([board(standing("core.lora", 1.0))]) == [] and mean_ranks([]) == []


def test_titles_say_what_tells_the_boards_apart() -> None:
    boards = [board(standing("x.y", 1.0)), board(standing("x.y", 1.0), model="n")]
    assert "  m  n" in rank_table(mean_ranks(boards), boards).render().splitlines()[0]
