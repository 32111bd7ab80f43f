"""A suite's averages: from the scores of all its data sets, by seed; and a sentence where there are none."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Outcome, write_page
from peftx.bench.averages import averages_of
from peftx.plugins.registry import Registry
from peftx.report.averages import AverageRow, Averages
from peftx.report.board import Board, Standing

Call = Callable[..., Outcome]
DATA = ("toy.points spread=2", "toy.points classes=4 spread=2")


def test_averages_by_seed_and_their_spread(
    bench: Call, inline: None, registry: Registry, tmp_path: Path
) -> None:
    outcome = bench("grid/averaged", published=True)
    (found,) = outcome.averages
    assert (found.model, found.data, found.names, found.notes) == ("toy.net", 2, ("mean", "worst"), ())
    *rows, printed = found.rows
    assert [row.label for row in rows] == ["core.head"]
    for row in rows:
        scores = {
            data: next(one for one in board.standings if one.label == row.label).values
            for data, board in zip(
                DATA, sorted(outcome.boards, key=lambda one: "classes" in one.data), strict=True
            )
        }
        by_seed = [(a + b) / 2 for a, b in zip(*scores.values(), strict=True)]
        assert row.seeds == (0, 1) and row.values["mean"] == tuple(by_seed)
        assert row.mean["mean"] == pytest.approx(statistics.mean(by_seed))
        assert row.sd["mean"] == pytest.approx(statistics.stdev(by_seed))
        assert row.values["worst"] == tuple(map(min, zip(*scores.values(), strict=True)))
    assert (printed.label, printed.published, printed.seeds) == ("Sorter (Abacus)", "a book", ())
    text = found.table().render()
    assert "99.00" in text and " ± " in text and "a book" in text
    assert outcome.to_dict()["averages"][0]["rows"][0]["mean"]["mean"] == rows[0].mean["mean"]
    page = outcome.page.read_text() if outcome.page else ""
    assert "Averages over the data sets" in page and "averages with toy.net" in page and "Abacus" in page
    first = page
    assert write_page(tmp_path / "out", registry).read_text() == first


def test_a_part_of_the_data_has_no_averages(bench: Call, inline: None) -> None:
    outcome = bench("grid/averaged", data=({"name": "toy.points", "spread": 2.0},), seeds=1)
    (found,) = outcome.averages
    assert found.rows == () and found.notes == (
        "no averages with toy.net: they take all 2 data sets of the suite, and there is no score on "
        "toy.points classes=4 spread=2",
    )
    assert outcome.page is not None and found.notes[0] in outcome.page.read_text()


# --- rows that lack something, on boards made by hand


def made(
    scores: Mapping[str, Mapping[str, Mapping[int, float]]],
    registry: Registry,
    titles: Mapping[str, str] | None = None,
    **changes: Any,
) -> list[Averages]:
    """Averages of `scores`, by data set, row and seed; `titles`: what records call a data set otherwise."""
    out = Path("out")
    cells, boards = [], []
    for data, rows in scores.items():
        standings = []
        for label, values in rows.items():
            names = {seed: f"{data}/{label}/seed{seed}" for seed in values}
            cells += [
                {"folder": name, "data": data, "model": "toy.net", "label": label} for name in names.values()
            ]
            standings.append(
                Standing(
                    method=label,
                    label=label,
                    seeds=tuple(values),
                    values=tuple(values.values()),
                    folders=tuple(str(out / name) for name in names.values()),
                )
            )
        title = (titles or {}).get(data, data)
        boards.append(
            Board("grid.sorting", title, "toy.net", "accuracy", "%", True, "test", tuple(standings))
        )
    bench = {"suite": "grid.averaged", "cells": cells} | changes
    return averages_of(out, bench, boards, registry)


def test_seeds_that_not_all_data_sets_have_are_left_out_and_told(registry: Registry) -> None:
    (found,) = made(
        {DATA[0]: {"a": {0: 80.0, 1: 82.0, 2: 10.0}}, DATA[1]: {"a": {1: 92.0, 0: 90.0, 3: 5.0}}}, registry
    )
    assert found.rows == (
        AverageRow(
            "a",
            (0, 1),
            {"mean": (85.0, 87.0), "worst": (80.0, 82.0)},
            {"mean": 86.0, "worst": 81.0},
            {"mean": pytest.approx(2**0.5), "worst": pytest.approx(2**0.5)},
        ),
    )
    assert found.notes == ("a: averages without seeds 2, 3, which not all data sets have",)


def test_no_published_averages_beside_those_of_a_partial_copy(registry: Registry) -> None:
    scores: dict[str, Any] = {name: {"a": {0: 70.0}} for name in DATA}
    (whole,) = made(scores, registry, published=True)
    assert [row.published for row in whole.rows] == ["", "a book"]
    title = "toy.points (partial copy) spread=2"
    (found,) = made(scores, registry, titles={DATA[0]: title}, published=True)
    assert [row.label for row in found.rows] == ["a"]
    assert found.notes == (f"no published averages beside these: some are of {title}",)


def test_rows_are_ordered_by_the_first_average(registry: Registry) -> None:
    rows = {"a": {0: 70.0}, "b": {0: 90.0}, "c": {0: 80.0}}
    (found,) = made(dict.fromkeys(DATA, rows), registry)
    assert [row.label for row in found.rows] == ["b", "c", "a"]


def test_a_row_that_lacks_a_data_set_is_told_and_the_others_have_theirs(registry: Registry) -> None:
    (found,) = made(
        {
            DATA[0]: {"a": {0: 80.0}, "b": {0: 70.0}, "c": {0: 1.0}},
            DATA[1]: {"a": {0: 90.0}, "c": {1: 1.0}},
        },
        registry,
    )
    assert [row.label for row in found.rows] == ["a"] and found.rows[0].sd == {"mean": None, "worst": None}
    assert found.notes == (
        f"b has no averages: it has no score on {DATA[1]}",
        "c has no averages: no seed has a score on all data sets",
    )
    assert found.table().to_dict()[0]["mean mean"] == "85.00"


def test_a_mistake_in_the_function_is_a_note(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    import benchpack_plugin

    monkeypatch.setattr(benchpack_plugin, "averages", lambda scores: {"mean": 1 / 0})
    (found,) = made({DATA[0]: {"a": {0: 80.0}}, DATA[1]: {"a": {0: 90.0}}}, registry)
    assert found.rows == () and found.notes == ("a has no averages: ZeroDivisionError: division by zero",)


@pytest.mark.parametrize("suite", ["grid.small", "gone.suite", None])
def test_other_suites_have_none(registry: Registry, suite: Any) -> None:
    assert made({DATA[0]: {"a": {0: 80.0}}}, registry, suite=suite) == []


def test_averages_survive_json(registry: Registry) -> None:
    (found,) = made({DATA[0]: {"a": {0: 80.0}}, DATA[1]: {"a": {0: 90.0}}}, registry)
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["values"]["mean"] == [85.0]
