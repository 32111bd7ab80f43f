"""The panel of scores over time: what it draws, what it counts, and that damaged details cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftx.report import RunSource
from peftx.report.markup import problem
from peftx_timeseries.metrics.anomaly import curve
from peftx_timeseries.report.scores import scores

KINDS = [
    {"kind": "spike", "segments": 2, "segments_hit": 1, "rows": 4, "rows_flagged": 1},
    {"kind": "flat", "segments": 0, "segments_hit": 0, "rows": 0, "rows_flagged": 0},
]


def details(**changes: Any) -> dict[str, Any]:
    found = np.random.default_rng(0).random(2000)
    anomalous = np.zeros(2000, bool)
    anomalous[100:150] = anomalous[900:1000] = True
    return {"curve": curve(found, anomalous), "threshold": 0.9, "kinds": KINDS, **changes}


def source(**held: Any) -> RunSource:
    record = {"method": "a.own", "rows": [{"method": name, "metrics": {}} for name in held], "units": {}}
    return RunSource(
        Path("run"), record, details={name: {"test": {"anomaly": one}} for name, one in held.items()}
    )


def test_a_drawing_for_each_row_with_truth_and_threshold() -> None:
    panel = scores(source(**{"a.own": details(), "b.other": details(threshold=None, kinds=None)}))
    assert panel is not None and not problem(panel.body_html)
    html = str(panel.body_html)
    assert html.count("<svg") >= 2 and html.count("labelled anomalous: row") == 4
    assert html.count("threshold 0.9") == 1
    assert "1 of 2" in html and "25.00" in html


def test_runs_of_other_tasks_have_no_such_panel() -> None:
    record = {"method": "a.own", "rows": [], "units": {}}
    assert scores(RunSource(Path("run"), record)) is None
    assert scores(RunSource(Path("run"), record, details={"a.own": {"test": {"mse_by_row": [1.0]}}})) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"curve": None},
        {"curve": {}},
        {"curve": {"row": [1], "score": ["x"], "anomalous": [0], "rows": [1]}},
        {"curve": {"row": [1, 2], "score": [0.5], "anomalous": [0], "rows": [1]}},
        {"curve": {"row": [0], "score": [0.0], "anomalous": [0], "rows": [1]}},
    ],
)
def test_details_that_are_no_scores_are_left_out(damage: dict[str, Any]) -> None:
    assert scores(source(**{"a.own": details(**damage)})) is None


def test_a_single_row_and_scores_of_zero_among_others_are_drawn() -> None:
    one = {"row": [0], "score": [0.5], "anomalous": [1], "rows": [1]}
    assert scores(source(**{"a.own": details(curve=one)})) is not None
    some = {"row": [0, 1], "score": [0.5, 0.0], "anomalous": [0, 0], "rows": [2]}
    assert scores(source(**{"a.own": details(curve=some, threshold=0.0)})) is not None
