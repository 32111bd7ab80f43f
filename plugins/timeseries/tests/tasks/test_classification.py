"""Classification as a task: batches, refusals, whole runs beside their rows, and answers for new files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peftx.config.run import RunConfig
from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError
from peftx.plugins import get_registry
from peftx.runs import execute
from peftx.runs import predict as predict_run
from peftx.runs.matching import why_not
from peftx.runs.reload import evaluate as evaluate_run
from peftx.tasks import ModelSource
from peftx.testing import check
from peftx_timeseries.config.classification import (
    ClassificationConfig,
    MajorityConfig,
    NearestConfig,
    PatternsConfig,
)
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.data import patterns, waves
from peftx_timeseries.methods.classifiers import Majority, NearestNeighbour
from peftx_timeseries.methods.naive import RepeatLast
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.plugin.classification import CLASSIFICATION_ROWS
from peftx_timeseries.series.samples import SampleSplit
from peftx_timeseries.tasks.classification import Classification

CTX = DataContext.create(offline=True)
SMALL = {"train": 60, "test": 24, "length": 32}


def data(**options: Any) -> Dataset:
    return patterns.load(PatternsConfig(**{**SMALL, **options}), CTX)


def task(held: Dataset | None = None, model: dict[str, Any] | None = None, **options: Any) -> Classification:
    source = ModelSource("timeseries.random", model or {}, lambda _: random_trunk(16, 2, 1))
    return Classification(ClassificationConfig(**options), held or data(), source, CTX)


def test_batches_hold_every_sample_scaled_by_the_training_samples() -> None:
    held = data()
    made = task(held)
    batches = list(made.batches("train", 7))
    assert sum(len(b["y"]) for b in batches) == 48 and len(batches) == len(made.batches("train", 7)) == 7
    assert all(set(batch) == {"x", "y"} for batch in batches)
    x = torch.cat([batch["x"] for batch in batches])
    assert x.shape == (48, 3, 32) and x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var((0, 2), unbiased=False), torch.ones(3), atol=1e-4, rtol=0)
    first, label = held.splits["test"][0]
    scaler = held.card["scaler"]
    batch = next(iter(made.batches("test", 1)))
    np.testing.assert_allclose(
        batch["x"][0].T, (first - scaler["mean"][0]) / np.array(scaler["std"][0]), rtol=1e-5, atol=1e-6
    )
    assert int(batch["y"]) == label


def test_shorter_samples_have_a_mask_and_gaps_are_filled() -> None:
    held = data(unequal=True, missing=0.3)
    made = task(held)
    for split in ("train", "test"):
        batch = next(iter(made.batches(split, 50)))
        lengths = held.splits[split].lengths[: len(batch["y"])]  # type: ignore[attr-defined]
        assert batch["x"].isfinite().all() and batch["seen"].sum(1).tolist() == lengths.tolist()
        assert (batch["x"] * (1 - batch["seen"])[:, None]).abs().max() == 0
    by_itself = task(held, scaling="sample").held("train")
    own = by_itself.x[0, 0, : int(by_itself.ends[0])]
    assert abs(float(own.mean())) < 0.3 and 0.5 < float(own.std()) < 1.5
    torch.testing.assert_close(
        task(data(), scaling="none").held("test").x[0],
        torch.from_numpy(data().splits["test"][0][0].T).float(),
    )


def test_values_that_float32_has_no_number_for_are_refused() -> None:
    values = [one.copy() for one in data().splits["test"].values]  # type: ignore[attr-defined]
    values[4][3, 1] = 1e60
    split = SampleSplit(values, data().splits["test"].labels)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^sample 5 of 24 has values of up to 1e\+60, too large beside"):
        task().prepared(split)
    assert task(scaling="sample").prepared(split).x.isfinite().all()


def test_longer_samples_are_cut_and_that_is_told() -> None:
    made = task(length=20)
    made.prepare(["train", "test"])
    assert made.sample_shapes.length == 20 and made.held("test").x.shape[2] == 20
    assert made.notes == ["72 samples of more than 20 steps are cut at their end"]
    torch.testing.assert_close(made.held("test").x, task().held("test").x[..., :20])


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (
            {"patch": 40},
            {},
            "samples of 32 steps are shorter than a patch of 40: take a shorter --model.patch",
        ),
        (
            {"residual": "linear"},
            {},
            "--model.residual linear is for a forecast, and a classification has none",
        ),
        (
            {"patch": 1, "stride": 1},
            {"length": 2000},
            "make 2001 patches, and timeseries.random has 1024 positions",
        ),
    ],
)
def test_a_model_that_cannot_be_is_refused(model: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        task(model=model, **options).build_model()


def test_short_samples_have_shorter_patches_unless_told() -> None:
    made = task(length=5)
    assert made.build_model().patches == 2 and made.model_card()["patch"] == 5  # type: ignore[union-attr]


def test_forecasts_are_no_classifications_nor_the_other_way_round() -> None:
    tasks = {
        name: get_registry().tasks[f"timeseries.{name}"].spec for name in ("forecasting", "classification")
    }
    methods = get_registry().methods
    for name in CLASSIFICATION_ROWS:
        assert why_not(methods[name].spec, tasks["classification"]) is None
        assert "and not on timeseries.forecasting" in str(why_not(methods[name].spec, tasks["forecasting"]))
    for name in tasks["forecasting"].baselines:
        assert "and not on timeseries.classification" in str(
            why_not(methods[name].spec, tasks["classification"])
        )
    assert not set(tasks["classification"].baselines) & set(tasks["forecasting"].baselines)
    with pytest.raises(ConfigError, match="Classification is no forecasting task"):
        RepeatLast().build(task(), None)
    series = waves.load(WavesConfig(), CTX)
    with pytest.raises(DataError, match=r"timeseries\.waves holds no series with classes"):
        task(series)


def test_the_majority_knows_the_shares() -> None:
    made = task(data(limit_train=13))
    values = Majority().fit(Majority().build(made, MajorityConfig()), made, MajorityConfig())
    counts = np.bincount(made.held("train").y, minlength=6) + 1
    np.testing.assert_allclose(values["log_share"].exp(), counts / counts.sum())


def test_places_without_a_sample_are_no_neighbours() -> None:
    """A task on fewer samples than its card says, as the laws make one, fits the same model."""
    held = data()
    few = Dataset(
        held.name,
        {**held.splits, "train": held.splits["train"].select(range(9))},
        held.classes,
        "",
        held.card,
    )
    made, method = task(few), NearestNeighbour()
    model: Any = method.build(made, NearestConfig())
    for name, value in method.fit(model, made, NearestConfig()).items():
        getattr(model, name).data.copy_(value)
    assert model.values.shape[0] == 48
    batch = next(iter(made.batches("train", 9)))
    assert made.forward(model, batch).argmax(1).tolist() == batch["y"].tolist()


def run(out: Path, method: Any, **values: Any) -> Any:
    settings: dict[str, Any] = {
        "task": "timeseries.classification",
        "method": method if isinstance(method, dict) else {"name": method},
        "model": {"name": "timeseries.random", "width": 16, "heads": 2, "blocks": 1},
        "data": {"name": "timeseries.patterns", **SMALL},
        "out": out,
        "device": "cpu",
        "train": {"epochs": 1},
        "baselines": [],
        "efficiency": False,
        "report": False,
    }
    return execute(RunConfig.model_validate(settings | values), get_registry())


def test_a_run_prints_its_rows_and_is_scored_again_exactly(tmp_path: Path) -> None:
    uneven = {"name": "timeseries.patterns", **SMALL, "unequal": True}
    result = run(tmp_path / "run", "timeseries.one_for_all", baselines=None, data=uneven, report=True)
    assert [row["method"] for row in result.rows] == ["timeseries.one_for_all", *CLASSIFICATION_ROWS]
    assert not any("error" in row for row in result.rows)
    scores = {row["method"]: row["metrics"]["test"] for row in result.rows}
    assert (
        scores["timeseries.majority"]["accuracy"] == pytest.approx(100 / 6)
        and "ece" in scores["timeseries.rocket"]
    )
    assert scores["timeseries.rocket"]["accuracy"] > 25
    assert evaluate_run(result.folder, get_registry()).exact
    assert "timeseries.rocket" in (result.folder / "report.html").read_text()


ROWS = [
    {"name": "timeseries.rocket", "kernels": 60},
    {"name": "timeseries.nearest", "distance": "dtw"},
    {"name": "timeseries.majority"},
]


@pytest.mark.parametrize("method", ROWS, ids=lambda one: one["name"])
def test_a_row_that_is_its_training_set_is_scored_again_exactly(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    result = run(tmp_path / "run", method)
    assert result.rows[0]["selected_on"] == "closed form"
    again = evaluate_run(result.folder, get_registry())
    assert again.exact, again.summary()
    # and it answers without its data
    write(tmp_path / "new.ts", data().splits["test"].values[:3])  # type: ignore[attr-defined]
    (answer,) = predict_run(result.folder, [tmp_path / "new.ts"], registry=get_registry())
    assert len(answer["samples"]) == 3 and {row["class"] for row in answer["samples"]} <= set(
        patterns.CLASSES
    )


def write(path: Path, values: Any, classes: str = "@classLabel false", label: str = "") -> None:
    lines = [":".join(",".join(f"{v:g}" for v in channel) for channel in one.T) + label for one in values]
    path.write_text(f"@timeStamps false\n{classes}\n@data\n" + "\n".join(lines) + "\n")


def test_new_files_are_answered_sample_by_sample(tmp_path: Path) -> None:
    held = data()
    folder = run(tmp_path / "run", {"name": "timeseries.rocket", "kernels": 200}).folder
    samples = held.splits["test"].values[:12]  # type: ignore[attr-defined]
    write(tmp_path / "a.ts", [*samples, samples[0][:20]])
    write(tmp_path / "b.ts", [samples[0].repeat(2, 0)], "@classLabel true theirs", ":theirs")
    first, second = predict_run(
        folder, [tmp_path / "a.ts", tmp_path / "b.ts"], top=2, registry=get_registry()
    )
    assert [row["sample"] for row in first["samples"]] == list(range(1, 14))
    labels = [held.classes[label] for label in held.splits["test"].labels[:12]]  # type: ignore[index]
    assert np.mean([row["class"] == one for row, one in zip(first["samples"], labels, strict=False)]) > 0.4
    row = first["samples"][0]
    assert row["top"].startswith(f"{row['class']} {row['probability']:.3f}, ") and "stated" not in row
    assert second["samples"][0]["stated"] == "theirs"
    assert second["notes"] == ["b.ts: 1 samples of more than 32 steps were cut at their end"]
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "a.ts.gz").write_bytes(gzip.compress((tmp_path / "a.ts").read_bytes()))
    (packed,) = predict_run(folder, [tmp_path / "packed"], top=2, registry=get_registry())
    assert packed["samples"] == first["samples"]
    write(tmp_path / "c.ts", [samples[0][:, :2]])
    for name, said in {
        "c.ts": "c.ts has 2 dimensions, and the run was trained on 3",
        "d.ts": "no such file",
    }.items():
        with pytest.raises(DataError, match=said):
            predict_run(folder, [tmp_path / name], registry=get_registry())


def test_the_task_keeps_the_laws() -> None:
    report = check("timeseries.classification")
    assert report.ok, report.render()


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFICATION_ROWS)
def test_the_rows_keep_the_laws(name: str) -> None:
    report = check(name)
    assert report.ok, report.render()
