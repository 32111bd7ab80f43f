"""The page of a bench: boards, ranks, single seeds, cells, and what failed."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from peftx.report import BenchSource, write_bench
from peftx.report.averages import AverageRow, Averages
from peftx.report.board import mean_ranks
from peftx.report.figures import column
from peftx.report.markup import problem

EVIL = "<script>alert('x')</script> \"quoted\" &"


def written(source: BenchSource, tmp_path) -> str:
    return write_bench(source, tmp_path / "bench.html").read_text(encoding="utf-8")


def table(text: str, caption: str) -> list[list[str]]:
    body = (
        text.partition(f"<caption>{caption}</caption>")[2].partition("</thead>")[2].partition("</table>")[0]
    )
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body)
    return [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in rows
    ]


def sound(text: str) -> None:
    body = text.partition("<body>")[2].partition("</body>")[0]
    assert problem(body) == ""
    assert text.count("<script>") == 1


def test_every_figure_of_a_board_is_its_standings(make_bench, tmp_path) -> None:
    source = make_bench()
    text = written(source, tmp_path)
    sound(text)
    for board in source.boards:
        found = table(text, f"standings on {board.data} with {board.model}")
        ours = sorted(
            (s for s in board.standings if not s.published), key=lambda s: (s.rank is None, s.rank or 0)
        )
        rows = [*ours, *(s for s in board.standings if s.published)]
        columns = list(zip(*found, strict=True))
        assert list(columns[0]) == [s.label for s in rows]
        assert list(columns[1]) == ["–" if s.rank is None else str(s.rank) for s in rows]
        assert list(columns[2]) == column([s.mean for s in rows], "percent")[1]
        assert list(columns[3]) == column([s.sd for s in rows], "percent")[1]
        assert list(columns[4]) == [str(s.n) if s.n else "–" for s in rows]
        assert list(columns[5]) == column([s.trainable for s in rows], "count")[1]
        assert list(columns[9]) == column([s.seconds for s in rows], "seconds")[1]
        assert list(columns[11]) == ["●" if s.pareto else "" for s in rows]
        assert list(columns[13]) == [s.published for s in rows]


def test_every_seed_is_a_mark(make_bench, tmp_path) -> None:
    source = make_bench(1)
    text = written(source, tmp_path)
    for standing in source.boards[0].standings:
        for seed, value in zip(standing.seeds, standing.values, strict=True):
            assert f"<title>{standing.label}\nseed {seed}: accuracy {value:.2f} %</title>" in text


def test_published_rows_stand_apart(make_bench, tmp_path) -> None:
    text = written(make_bench(1), tmp_path)
    body = text.partition("<caption>standings on toy.small")[2].partition("</table>")[0]
    first, second = body.split("<tbody>")[1:]
    assert "Full tuning" in second and "Full tuning" not in first and 'class="published"' in second
    assert "have no rank" in text
    plots = text.partition("Quality against cost")[2].partition("Search for learning rates")[0]
    assert "Full tuning" not in plots


def test_failures_are_named_with_their_cause(make_bench, tmp_path) -> None:
    text = written(make_bench(1), tmp_path)
    assert "core.dora</strong>: 1 failed run: after step 12 the loss is nan" in text
    assert "core.broken</strong>: 3 failed runs: no site of the model matched" in text
    assert "2 of 24 runs failed" in text


def test_a_bench_under_way_says_so(make_bench, tmp_path) -> None:
    source = make_bench(1)
    assert "1 of 24 runs are not done" in written(source, tmp_path)
    for cell in source.bench["cells"]:
        cell["state"] = "done"
    assert "not done" not in written(source, tmp_path)


def test_mean_ranks_are_those_of_the_boards(make_bench, tmp_path) -> None:
    source = make_bench(3)
    text = written(source, tmp_path)
    found = table(text, "mean rank by method")
    expected = mean_ranks(source.boards)
    assert [(row[0], row[1]) for row in found] == [(one.label, f"{one.rank:.2f}") for one in expected]
    assert [row[2:] for row in found] == [[str(rank) for rank in one.ranks] for one in expected]
    assert "Mean rank" not in written(make_bench(1), tmp_path)


def test_the_search_shows_every_rate_and_marks_the_chosen_one(make_bench, tmp_path) -> None:
    text = written(make_bench(1), tmp_path)
    found = table(text, "validation score by learning rate")
    assert [row[1:] for row in found] == [["96", "97 ●", "diverged"]] * 8
    assert "after step 3 the loss is nan" in text


def test_the_leader_is_told_with_what_the_spread_allows(make_bench, tmp_path) -> None:
    source = make_bench(1)
    board = source.boards[0]
    first, second, *others = board.standings
    close = replace(second, mean=first.mean, sd=first.sd)
    text = written(replace(source, boards=(replace(board, standings=(first, close, *others)),)), tmp_path)
    assert f"{first.label} leads with {first.mean:.2f} ± {first.sd:.2f} % (n = 3)" in text
    assert "the gap is within one standard deviation of their seeds" in text
    lone = replace(first, sd=None, seeds=(0,), values=(first.mean,))
    text = written(replace(source, boards=(replace(board, standings=(lone, second)),)), tmp_path)
    assert "one seed is no spread" in text


def test_foreign_text_stays_text(make_bench, tmp_path) -> None:
    source = make_bench(1)
    board = source.boards[0]
    evil = tuple(
        replace(s, label=EVIL, method=EVIL, cause=EVIL, published=s.published and EVIL)
        for s in board.standings
    )
    board = replace(board, data=EVIL, model=EVIL, primary=EVIL, unit=EVIL, notes=(EVIL,), standings=evil)
    bench = {
        "suite": EVIL,
        "about": EVIL,
        "options": {EVIL: EVIL},
        "notes": [EVIL],
        "next": [EVIL],
        "command": EVIL,
        "cells": [{"label": EVIL, "state": "failed", "cause": EVIL}],
        "rows": [{"label": EVIL, "search": [{"rate": 0.1, "state": EVIL, "cause": EVIL}]}],
    }
    text = written(replace(source, boards=(board,), bench=bench), tmp_path)
    sound(text)
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    "bench",
    [
        {},
        {"cells": 3, "rows": "x", "options": [], "notes": None, "next": "x"},
        {"rows": [3, {"search": [4]}]},
    ],
)
def test_a_bench_without_much_in_it_has_a_page(bench, tmp_path) -> None:
    text = written(BenchSource(tmp_path, bench, ()), tmp_path)
    sound(text)
    assert "No run has a score yet." in text


def test_runs_of_different_machines_are_told(make_bench, tmp_path) -> None:
    source = make_bench(1)
    assert "times and memory may not compare" not in written(source, tmp_path)
    next(iter(source.records.values()))["versions"]["torch"] = "2.9.0"
    assert "The runs differ in torch (2.8.0, 2.9.0)" in written(source, tmp_path)


def test_the_same_bench_gives_the_same_bytes(make_bench, tmp_path) -> None:
    assert written(make_bench(), tmp_path) == written(make_bench(), tmp_path)


def test_where_less_is_better_the_lowest_stands_out(make_bench, tmp_path) -> None:
    source = make_bench(1)
    text = written(replace(source, boards=(replace(source.boards[0], higher_is_better=False),)), tmp_path)
    lowest = min(s.mean for s in source.boards[0].standings if s.mean is not None and not s.published)
    assert f'class="num best" data-value="{lowest!r}"' in text


def test_averages_come_first_with_their_spread_and_published_ones_apart(make_bench, tmp_path) -> None:
    source = make_bench(2)
    label = source.labels[0]
    own = AverageRow(label, (0, 1), {"mean": (90.0, 92.0)}, {"mean": 91.0}, {"mean": 2**0.5})
    printed = AverageRow(EVIL, mean={"mean": 95.0}, published="a book")
    made = Averages(
        "toy.net", 2, "test accuracy", "%", ("mean",), (own, printed), ("core.dora has no averages",)
    )
    text = written(replace(source, averages=(made,)), tmp_path)
    sound(text)
    assert table(text, "averages with toy.net") == [
        [label, "2", "91.00 ± 1.41", ""],
        [EVIL, "–", "95.00", "a book"],
    ]
    assert text.index("Averages over the data sets") < text.index(">Overview</h2>")
    assert "best mean" in text and "core.dora has no averages" in text
    without = replace(made, rows=(), names=())
    text = written(replace(source, averages=(without,)), tmp_path)
    sound(text)
    assert text.index("Averages over the data sets") > text.index(">Overview</h2>")
    assert "Averages over the data sets" not in written(source, tmp_path)
