"""Anomaly detection: what is scored, what the threshold is made of, what selects, and what is never looked at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from peftx.config.run import RunConfig
from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError, ModelError
from peftx.evaluation import evaluate
from peftx.plugins.manager import get_registry
from peftx.runs import execute
from peftx.runs import predict as predict_run
from peftx.runs.reload import evaluate as evaluate_run
from peftx.tasks import ModelSource
from peftx_timeseries.config.anomaly import AnomalyConfig, FaultsConfig
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.config.models import RandomConfig
from peftx_timeseries.data import faults, waves
from peftx_timeseries.models.registered import random
from peftx_timeseries.plugin.anomaly import ANOMALY_ROWS
from peftx_timeseries.series.marked import Marked
from peftx_timeseries.series.series import SeriesSplit
from peftx_timeseries.tasks.anomaly import AnomalyDetection


class Zero(nn.Module):
    """Expects every row at the training mean."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


ZERO = Zero()


def source(**options: Any) -> ModelSource:
    config = RandomConfig(width=16, heads=2, blocks=1, **options)
    return ModelSource("timeseries.random", config.model_dump(), lambda outputs: random(config, outputs))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return faults.load(FaultsConfig(rows=1030, events=1, count=4), DataContext.create())


@pytest.fixture
def make(data: Dataset) -> Callable[..., AnomalyDetection]:
    def build(held: Dataset = data, model: ModelSource | None = None, **options: Any) -> AnomalyDetection:
        config = AnomalyConfig(**{"length": 50, **options})
        return AnomalyDetection(config, held, model or source(), DataContext.create())

    return build


def relabelled(data: Dataset, labels: np.ndarray) -> Dataset:
    test = dataclasses.replace(data.splits["test"][0], labels=labels.astype(np.int8))
    return dataclasses.replace(data, splits={**data.splits, "test": SeriesSplit([test])})


def test_every_row_of_a_split_is_scored_the_last_window_included(
    make: Callable[..., AnomalyDetection],
) -> None:
    task = make()
    found = evaluate(task, ZERO, "test", 7)
    assert found["n"] == task.samples("test") == 21  # 1,030 rows are 20 windows of 50 and one more
    test, rows = task.data.splits["test"][0], task.data.splits["train"][0].values[:824]
    z = (test.values - rows.mean(0)) / rows.std(0)
    assert found["reconstruction_error"] == pytest.approx((z**2).mean())
    assert found["anomaly_rate"] == pytest.approx((test.labels != 0).mean())


def test_the_threshold_is_the_percentile_that_was_asked_for(make: Callable[..., AnomalyDetection]) -> None:
    task = make()
    scores = {
        split: task.scores_of(ZERO, task.data.splits[split][0], "cpu") for split in ("train", "val", "test")
    }
    both = np.concatenate([scores["train"], scores["val"]])
    for options, reference in (
        ({}, both),
        ({"threshold": "val"}, scores["val"]),
        ({"threshold": "train_test"}, np.concatenate([both, scores["test"]])),
    ):
        for ratio in (1.0, 5.0):
            found = evaluate(make(ratio=ratio, **options), ZERO, "test", 64)
            assert found["threshold"] == pytest.approx(np.percentile(reference, 100 - ratio)), options
            flagged = scores["test"] > found["threshold"]
            true = task.data.splits["test"][0].labels != 0
            assert found["precision"] == pytest.approx((flagged & true).sum() / max(flagged.sum(), 1))
            assert found["recall"] == pytest.approx((flagged & true).sum() / true.sum())
            assert found["f1_adjusted"] >= found["f1"]


def test_rows_that_are_trained_and_validated_on_count_once(data: Dataset, make: Callable[..., Any]) -> None:
    val = data.splits["val"][0]
    held = dataclasses.replace(data, splits={**data.splits, "train": SeriesSplit([val.rows(0, val.end)])})
    assert len(make(held).reference(ZERO, 64)) == val.end
    assert len(make().reference(ZERO, 64)) == val.end
    without = dataclasses.replace(data, splits={name: data.splits[name] for name in ("train", "test")})
    assert len(make(without).reference(ZERO, 64)) == val.begin
    with pytest.raises(ConfigError, match=r"no validation rows .*--task\.threshold train_val"):
        make(without, threshold="val").reference(ZERO, 64)


def test_a_threshold_that_looked_at_the_test_set_is_told(make: Callable[..., AnomalyDetection]) -> None:
    for options, said in (({}, False), ({"threshold": "train_test"}, True)):
        task = make(**options)
        task.prepare(["train", "val", "test"])
        assert any("helped by the test set" in note for note in task.notes) is said


def test_the_ratio_of_a_protocol_holds_unless_another_is_asked_for(
    data: Dataset, make: Callable[..., Any]
) -> None:
    held = dataclasses.replace(data, card={**data.card, "ratio": 0.5})
    assert (make().ratio, make(held).ratio, make(held, ratio=3).ratio) == (1.0, 0.5, 3.0)


def test_test_labels_are_looked_at_by_test_scores_alone(data: Dataset, make: Callable[..., Any]) -> None:
    draw = np.random.default_rng(0)
    other = relabelled(data, draw.integers(0, 2, len(data.splits["test"][0])))
    one, two = make(), make(other)
    for split in ("train", "val"):
        for a, b in zip(one.batches(split, 8), two.batches(split, 8), strict=True):
            assert a.keys() == b.keys() == {"x", "start", "skip"}
            assert torch.equal(a["x"], b["x"])
        assert evaluate(one, ZERO, split, 8) == evaluate(two, ZERO, split, 8)
    a, b = evaluate(one, ZERO, "test", 8), evaluate(two, ZERO, "test", 8)
    assert (a["threshold"], a["reconstruction_error"]) == (b["threshold"], b["reconstruction_error"])
    assert a["average_precision"] != b["average_precision"]


def test_labels_of_training_rows_are_never_looked_at(data: Dataset, make: Callable[..., Any]) -> None:
    def marked(split: str) -> SeriesSplit:
        one = data.splits[split][0]
        return SeriesSplit([dataclasses.replace(one, labels=np.ones(len(one.values), np.int8))])

    held = dataclasses.replace(data, splits={**data.splits, "train": marked("train")})
    plain, other = make(), make(held)
    assert evaluate(other, ZERO, "test", 8) == evaluate(plain, ZERO, "test", 8)
    model = plain.build_model().eval()
    batches = [next(iter(task.batches("train", 8))) for task in (plain, other)]
    losses = [task.loss(model, batch) for task, batch in zip((plain, other), batches, strict=True)]
    assert torch.equal(losses[0], losses[1])


def test_validation_selects_by_the_reconstruction_error(make: Callable[..., AnomalyDetection]) -> None:
    task = make()
    assert task.decides("val") == ("reconstruction_error", False)
    assert task.decides("test") == ("average_precision", True)
    assert set(evaluate(task, ZERO, "val", 8)) == {"reconstruction_error", "n"}


@pytest.mark.parametrize("size", [1, 4, 64])
def test_no_batch_size_changes_a_score(make: Callable[..., AnomalyDetection], size: int) -> None:
    task = make(test_stride=20)
    torch.manual_seed(0)
    model = task.build_model()
    found, other = (evaluate(task, model, "test", one) for one in (size, 7))
    for name, value in found.items():
        assert other[name] == pytest.approx(value, rel=1e-5), name


def test_overlapping_windows_score_a_row_by_their_mean(make: Callable[..., AnomalyDetection]) -> None:
    whole, overlapping = make(), make(test_stride=10)
    assert overlapping.samples("test") == 99 and whole.samples("test") == 21
    assert overlapping.samples("train") == whole.samples("train")
    a = whole.scores_of(ZERO, whole.data.splits["test"][0], "cpu")
    b = overlapping.scores_of(ZERO, whole.data.splits["test"][0], "cpu")
    assert a == pytest.approx(b)  # this model does not care which window a row is in


def test_details_hold_what_a_page_draws(make: Callable[..., AnomalyDetection]) -> None:
    details = evaluate(make(), ZERO, "test", 64).details["anomaly"]
    assert [kind["kind"] for kind in details["kinds"]] == list(faults.KINDS)
    assert len(details["curve"]["score"]) == 600 and details["curve"]["rows"] == [1030]
    assert evaluate(make(), ZERO, "val", 64).details == {}


def test_data_without_labels_or_series_are_refused(
    make: Callable[..., AnomalyDetection], data: Dataset
) -> None:
    plain = waves.load(WavesConfig(), DataContext.create())
    with pytest.raises(DataError, match=r"timeseries\.waves have no labels.*timeseries\.labelled:FOLDER"):
        make(plain).prepare(["train", "val", "test"])
    make(plain).prepare(["train", "val"])  # a run that is not to be tested needs none
    calm = relabelled(data, np.zeros(1030))
    with pytest.raises(DataError, match="none of the 1,030 rows"):
        make(calm).prepare(["test"])
    with pytest.raises(DataError, match=r"206 val rows, fewer than a window of 500"):
        make(length=500).prepare(["val"])


def test_options_that_cannot_be_are_refused(make: Callable[..., AnomalyDetection]) -> None:
    with pytest.raises(ValueError, match="no whole number of segments"):
        AnomalyConfig(length=100, segment=30)
    with pytest.raises(ValueError, match="would leave rows out"):
        AnomalyConfig(length=100, test_stride=101)
    for option in ({"patch": 4}, {"stride": 4}, {"residual": "linear"}):
        with pytest.raises(ConfigError, match=f"--model.{next(iter(option))} is about forecasts"):
            make(model=source(**option)).build_model()
    with pytest.raises(
        ConfigError, match=r"window of 1050 rows is as many tokens, and .* has 1024 positions"
    ):
        make(length=1050).build_model()
    config = AnomalyConfig(ratio=2, threshold="val", features=8)
    assert AnomalyConfig.model_validate_json(config.model_dump_json()) == config


def table(task: AnomalyDetection, rows: int = 120) -> pd.DataFrame:
    test = task.data.splits["test"][0]
    frame = pd.DataFrame(test.values[:rows], columns=list(task.channels))
    frame.insert(0, "timestamp", [f"2024-01-01 {row // 60:02d}:{row % 60:02d}" for row in range(rows)])
    return frame.assign(other=1.0)


def test_each_row_of_a_new_table_has_a_score_and_an_alarm(
    make: Callable[..., AnomalyDetection], tmp_path: Path
) -> None:
    task = make()
    task.calibration = task.calibrate(ZERO, ["val", "test"])
    expected = evaluate(task, ZERO, "test", 256)["threshold"]
    assert task.calibration["threshold"] == pytest.approx(expected)
    table(task).to_csv(tmp_path / "new.csv", index=False)
    (found,) = task.predict(ZERO, [tmp_path / "new.csv"])
    scores = task.scores_of(ZERO, task.data.splits["test"][0], "cpu")[:120]
    assert [row["row"] for row in found["rows"]] == list(range(1, 121))
    assert [row["score"] for row in found["rows"]] == pytest.approx(scores, rel=1e-5)
    assert [row["anomaly"] for row in found["rows"]] == [bool(score > expected) for score in scores]
    assert (
        found["alarms"] == int((scores > expected).sum()) and found["rows"][61]["time"] == "2024-01-01 01:01"
    )
    assert "notes" not in found


def test_a_new_table_with_gaps_or_without_a_threshold_is_scored_and_told(
    make: Callable[..., AnomalyDetection], tmp_path: Path
) -> None:
    task = make()
    frame = table(task)
    frame.loc[10:12, "sensor2"] = math.nan
    frame.to_csv(tmp_path / "new.csv", index=False)
    (found,) = task.predict(ZERO, [tmp_path / "new.csv"])
    assert found["threshold"] is None and {row["anomaly"] for row in found["rows"]} == {None}
    assert any("3 missing values" in note for note in found["notes"])
    assert any("kept no threshold" in note for note in found["notes"])
    # as in the data that the run was trained on
    held = dataclasses.replace(task.data, card=dict(task.data.card) | {"missing": "zero"})
    (zeros,) = make(held).predict(ZERO, [tmp_path / "new.csv"])
    frame.fillna(0.0).to_csv(tmp_path / "filled.csv", index=False)
    (wanted,) = task.predict(ZERO, [tmp_path / "filled.csv"])
    assert zeros["rows"] == wanted["rows"] != found["rows"]
    assert zeros["notes"][0] == "3 missing values of new.csv became 0"


def test_a_new_table_that_does_not_fit_is_one_sentence(
    make: Callable[..., AnomalyDetection], tmp_path: Path
) -> None:
    task, path = make(), tmp_path / "new.csv"
    table(task).drop(columns="sensor3").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"has no column 'sensor3', which the run was trained on"):
        task.predict(ZERO, [path])
    table(task, 20).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"20 given rows, fewer than a window of 50: give more of them$"):
        task.predict(ZERO, [path])


def test_a_model_that_is_no_host_is_refused_in_one_sentence(make: Callable[..., AnomalyDetection]) -> None:
    other = ModelSource("mine.other", {}, lambda outputs: nn.Linear(3, 3))
    with pytest.raises(ModelError, match=r"^mine\.other is a Linear and no host: take one of"):
        make(model=other).build_model()


def test_several_machines_are_standardised_apart(data: Dataset, make: Callable[..., Any]) -> None:
    def twice(split: str) -> SeriesSplit:
        one = data.splits[split][0]
        assert isinstance(one, Marked)
        far = dataclasses.replace(one, name="other", values=one.values * 3 + 100)
        return SeriesSplit([one, far])

    card = {key: value for key, value in data.card.items() if key != "scaler"}
    held = dataclasses.replace(data, splits={split: twice(split) for split in data.splits}, card=card)
    both, alone = evaluate(make(held), ZERO, "test", 64), evaluate(make(), ZERO, "test", 64)
    for name in ("average_precision", "auroc", "reconstruction_error", "threshold"):
        assert both[name] == pytest.approx(alone[name], rel=1e-2), name  # a percentile of twice as many rows
    with pytest.raises(DataError, match="no series 'new' was trained on"):
        make(held).statistics(Marked("new", data.splits["test"][0].values, data.splits["test"][0].channels))


def test_a_run_prints_every_row_can_be_scored_again_and_raises_alarms(
    make: Callable[..., AnomalyDetection], tmp_path: Path
) -> None:
    found = execute(
        RunConfig.model_validate(
            {
                "task": {"name": "timeseries.anomaly", "length": 50},
                "data": {"name": "timeseries.faults", "rows": 1030, "events": 1, "count": 4},
                "model": {"name": "timeseries.random", "width": 16, "heads": 2, "blocks": 1},
                "method": {"name": "timeseries.one_for_all", "rank": 4},
                "train": {"epochs": 3},
                "efficiency": False,
                "device": "cpu",
                "out": tmp_path / "run",
            }
        )
    )
    rows = {row["method"]: row for row in found.rows}
    assert list(rows) == ["timeseries.one_for_all", *ANOMALY_ROWS] and not any(
        "error" in row for row in found.rows
    )
    assert (found.record["primary"], found.record["selects"]) == ("average_precision", "reconstruction_error")
    own = rows["timeseries.one_for_all"]
    errors = {line["epoch"]: line["reconstruction_error"] for line in own["history"]}
    assert own["best_epoch"] == min(errors, key=errors.__getitem__)
    assert "average_precision" not in own["metrics"]["val"]
    noise = rows["timeseries.random_score"]["metrics"]["test"]
    assert noise["average_precision"] == pytest.approx(noise["anomaly_rate"], abs=0.1)
    assert noise["f1_adjusted"] > 5 * noise["f1"]
    assert evaluate_run(found.folder, get_registry()).exact
    assert "Scores over time" in (found.folder / "report.html").read_text()
    table(make()).to_csv(tmp_path / "new.csv", index=False)
    (answer,) = predict_run(found.folder, [tmp_path / "new.csv"])
    assert answer["threshold"] == pytest.approx(own["metrics"]["test"]["threshold"], rel=1e-5)
    assert len(answer["rows"]) == 120 and answer["alarms"] == sum(row["anomaly"] for row in answer["rows"])
