"""The panel of a backtest: what a run leaves for it, what it shows of that, and that it needs none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftx.config.run import RunConfig
from peftx.report import RunSource
from peftx.report.markup import problem
from peftx.runs import execute
from peftx_timeseries.report.backtest import backtest

ROWS = ("timeseries.repeat_last", "timeseries.seasonal_naive", "timeseries.nlinear")


def run(folder: Path, baselines: tuple[str, ...] = (), **task: Any) -> Path:
    config = {
        "task": {"name": "timeseries", "input_length": 48, "horizon": 12, **task},
        "data": {"name": "waves", "rows": 900, "count": 5},
        "method": "timeseries.least_squares",
        "baselines": list(baselines),
        "train": {"epochs": 1, "batch_size": 512},
        "device": "cpu",
        "efficiency": False,
        "out": folder,
    }
    return execute(RunConfig.model_validate(config)).folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("run") / "run", ROWS)


def test_a_run_keeps_forecasts_from_origins_all_over_the_test_rows(folder: Path) -> None:
    held = json.loads((folder / "samples.json").read_text())["rows"]["timeseries.least_squares"]["test"]
    assert held["drawn"] == [4, 5] and len(held["strips"]) == 4
    strip = held["strips"][0]
    starts = [one["rows"][0] for one in strip["forecasts"]]
    # the test rows are 720 .. 899; all origins from the first to the last possible
    assert len(starts) == 8 and (starts[0], starts[-1]) == (720, 888)
    assert np.ptp(np.diff(starts)) <= 1
    assert strip["forecasts"][0]["origin"] == "2020-01-31 00:00:00"
    observed = dict(zip(strip["rows"], strip["values"], strict=True))
    inside = [
        low <= observed[row] <= high
        for one in strip["forecasts"]
        for row, low, high in zip(one["rows"], one["low"], one["high"], strict=True)
    ]
    assert strip["level"] == 0.8 and 0.5 < np.mean(inside) <= 1
    errors = held["errors"]
    assert errors["name"] == "seasonal naive" and len(errors["own"]) == 160
    # every origin is looked at when there are fewer than so many, so here it is about the score
    mse = json.loads((folder / "record.json").read_text())["rows"][0]["metrics"]["test"]["mse"]
    assert np.mean(errors["own"]) == pytest.approx(mse, rel=0.02)
    assert 0.6 < held["coverage"]["0.8"] < 0.95


def test_the_panel_shows_them_beside_the_best_naive_row(folder: Path) -> None:
    panel = backtest(RunSource.read(folder))
    assert panel is not None and not problem(panel.body_html)
    assert panel.body_html.count("<figure>") == 6 and "4 of 5 channels" in panel.note
    assert "intervals of nominal 80%, from the errors on validation; they hold" in panel.note
    assert "It beats timeseries.seasonal_naive at" in panel.body_html and "of 12 steps" in panel.body_html
    assert "It beats seasonal naive at" in panel.body_html
    assert "timeseries.nlinear" in panel.body_html and "timeseries.repeat_last" not in panel.body_html
    without = backtest(RunSource.read(folder, samples=False))
    assert (
        without is not None
        and without.body_html.count("<figure>") == 1
        and "--no-samples" not in without.note
    )


def test_nothing_is_kept_without_origins(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", backtest=0, stride=40)
    assert not (folder / "samples.json").exists()
    assert (folder / "calibration.json").exists()


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"strips": 3, "errors": []},
        {"strips": [None, {"forecasts": [{"rows": "x"}], "ticks": [[None, 1]]}], "errors": {"rows": [1]}},
        {"mistakes": [], "hits": []},
    ],
)
def test_samples_that_are_none_of_this_show_nothing(tmp_path: Path, held: dict[str, Any]) -> None:
    source = RunSource(tmp_path, {"method": "a.b", "rows": []}, samples={"a.b": {"test": held}})
    assert backtest(source) is None
