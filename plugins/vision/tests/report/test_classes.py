"""The confusion panel: for two, ten and a hundred classes, and where there is nothing to show."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from peftx.plugins.manager import get_registry
from peftx.report import RunSource, write_run
from peftx.report.markup import problem
from peftx_vision.report import Confusion, confusion

EVIL = '<script>"x"</script>'


def counts(classes: int, n: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    matrix = [[0] * classes for _ in range(classes)]
    for index in range(n):
        true = index % classes
        matrix[true][true if draw.random() < 0.9 else draw.randrange(classes)] += 1
    return matrix


def source(
    matrix: Any, names: list[str] | None = None, methods: tuple[str, ...] = ("core.lora",)
) -> RunSource:
    names = [f"class {i}" for i in range(len(matrix))] if names is None else names
    record = {
        "format": 1,
        "status": "complete",
        "method": methods[0],
        "primary": "accuracy",
        "data": {"name": "vision.digits", "classes": names},
        "rows": [{"method": method, "metrics": {"test": {"accuracy": 90.0}}} for method in methods],
    }
    details = {method: {"test": {"confusion": matrix}} for method in methods}
    return RunSource(Path("runs/a"), record, {}, details)


def cells(text: str, caption: str) -> list[list[str]]:
    body = (
        text.partition(f"<caption>{caption}</caption>")[2].partition("</thead>")[2].partition("</table>")[0]
    )
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body)
    return [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in rows
    ]


def test_recall_and_precision_by_hand() -> None:
    held = Confusion(("a", "b", "c"), [[8, 2, 0], [1, 4, 0], [0, 0, 0]])
    assert [held.recall(c) for c in range(3)] == [80.0, 80.0, None]
    assert [held.precision(c) for c in range(3)] == [pytest.approx(800 / 9), pytest.approx(400 / 6), None]
    assert held.mistakes() == [(0, 1, 2), (1, 0, 1)]


@pytest.mark.parametrize("classes", [2, 10, 20])
def test_few_classes_have_a_cell_for_every_count(classes: int) -> None:
    matrix = counts(classes, 359)
    panel = confusion(source(matrix))
    assert panel is not None and problem(panel.body_html) == ""
    shown = [int(n) for n in re.findall(r'class="cell mid">(\d+)<', panel.body_html)]
    assert shown == [n for row in matrix for n in row if n]
    found = cells(panel.body_html, "recall, precision and F1 by class")
    assert [row[0] for row in found] == [f"class {c}" for c in range(classes)]
    assert [row[1] for row in found] == [str(sum(row)) for row in matrix]
    assert [row[2] for row in found] == [f"{100 * row[c] / sum(row):.2f}" for c, row in enumerate(matrix)]


def test_a_cell_says_what_it_counts() -> None:
    panel = confusion(source([[9, 1], [0, 5]], ["cat", "dog"]))
    assert panel is not None
    assert "<title>cat taken for dog\n1 of 10 (10.0 %)</title>" in panel.body_html


def test_a_hundred_classes_are_small_and_name_the_hardest() -> None:
    matrix = counts(100, 10_000)
    panel = confusion(source(matrix, methods=("core.lora", "core.full")))
    assert panel is not None and problem(panel.body_html) == ""
    assert len(panel.body_html) < 120_000
    # every cell with a count is one square of some shade
    drawn = "".join(re.findall(r'<path d="([^"]*)" fill-opacity', panel.body_html))
    assert drawn.count("z") == sum(1 for row in matrix for n in row if n)
    hardest = cells(panel.body_html, "recall, precision and F1 by class")
    recalls = sorted(100 * row[c] / sum(row) for c, row in enumerate(matrix))
    assert [float(row[2]) for row in hardest] == [round(recall, 2) for recall in recalls[:10]]
    frequent = cells(panel.body_html, "most frequent confusions")
    assert int(frequent[0][2]) == max(n for t, row in enumerate(matrix) for p, n in enumerate(row) if t != p)
    assert "All 100 classes" in panel.body_html
    assert "data-show" not in panel.body_html, "one view, for the run's own method"


def test_every_row_of_a_run_has_a_view_while_classes_are_few() -> None:
    panel = confusion(source(counts(10, 100), methods=("core.lora", "core.full")))
    assert panel is not None and panel.body_html.count("data-show") == 2


def test_class_names_are_escaped_and_long_ones_cut() -> None:
    panel = confusion(source(counts(2, 50), [EVIL, "a very long name of a class"]))
    assert panel is not None and problem(panel.body_html) == ""
    assert EVIL not in panel.body_html and "a very long n…" in panel.body_html


def test_names_that_do_not_fit_are_numbers() -> None:
    panel = confusion(source([[1, 0], [0, 1]], ["only one"]))
    assert panel is not None
    assert [row[0] for row in cells(panel.body_html, "recall, precision and F1 by class")] == ["0", "1"]


@pytest.mark.parametrize("matrix", [None, [], [[1, 2]], [[1, "a"], [0, 1]], "text", [[1.5]]])
def test_nothing_to_show(matrix: Any) -> None:
    assert confusion(_with(matrix)) is None


def _with(matrix: Any) -> RunSource:
    made = source([[1]])
    return RunSource(made.folder, made.record, {}, {"core.lora": {"test": {"confusion": matrix}}})


def test_it_stands_on_the_page_of_a_run(tmp_path: Path) -> None:
    made = source(counts(10, 359))
    (tmp_path / "record.json").write_text(json.dumps(made.record))
    (tmp_path / "details.json").write_text(json.dumps({"format": 1, "rows": made.details}))
    text = write_run(tmp_path, get_registry()).read_text("utf-8")
    assert "Confusion matrix of core.lora" in text and "<h2>Classes</h2>" in text


def test_it_is_torch_free() -> None:
    code = "import sys, peftx_vision.report; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
