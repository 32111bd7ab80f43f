"""Scores on a line: where the marks stand, and what they say."""

from __future__ import annotations

import re

from peftx.report.markup import problem
from peftx.report.strips import Strip, strips

ROWS = [
    Strip("core.lora", [("seed 0", 97.0), ("seed 1", 99.0)], 98.0, "98.00 ± 1.41", 0, own=True),
    Strip("core.head", [("seed 0", 95.0)], 95.0, "95.00", 1),
    Strip("core.bad", [], None, "failed", 2, note="<nan>"),
    Strip("Paper", [("published", 98.6)], 98.6, "98.60"),
]


def test_every_seed_has_a_mark_at_its_place() -> None:
    found = strips(ROWS, metric="accuracy", unit="%")
    assert problem(found) == ""
    places = [float(x) for x in re.findall(r'<svg x="([\d.]+)%"', found)]
    assert len(places) == 4
    a, b, low, paper = places
    assert low < a < paper < b
    # 97 lies half way between 95 and 99
    assert abs((a - low) - (b - a)) < 0.02


def test_marks_say_seed_and_score_and_a_mean_needs_two_seeds() -> None:
    found = strips(ROWS, metric="accuracy", unit="%")
    assert "<title>core.lora\nseed 1: accuracy 99.00 %</title>" in found
    assert found.count('class="mean"') == 1
    assert "core.lora: mean 98.00 of 2" in found


def test_a_row_without_a_score_says_why() -> None:
    assert "<desc>&lt;nan&gt;</desc>" in strips(ROWS, metric="accuracy")


def test_no_scores_at_all() -> None:
    assert problem(strips(ROWS[2:3], metric="accuracy")) == ""
