"""Zero-shot transfer: whose rows are trained on and whose are tested, by which scaling, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from peftx.config.run import RunConfig
from peftx.data.checks import check_dataset
from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError, UnknownNameError
from peftx.plugins import get_registry
from peftx.runs import execute
from peftx.runs import predict as predict_run
from peftx.runs.reload import evaluate as evaluate_run
from peftx.tasks import ModelSource
from peftx.tasks.scoring import evaluate as score
from peftx.testing import check
from peftx_timeseries.config.data import OfficialConfig, WavesConfig
from peftx_timeseries.config.methods import NaiveConfig, SeasonalConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.config.transfer import TransferConfig
from peftx_timeseries.data import waves
from peftx_timeseries.data.official import ETTH1, ETTH2
from peftx_timeseries.data.transfer import load, locate
from peftx_timeseries.methods.naive import RepeatLast, SeasonalNaive
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.series.series import SeriesSplit
from peftx_timeseries.tasks.forecasting import Forecasting

Write = Callable[..., Path]
WAVES: dict[str, Any] = {
    "source": "waves",
    "target": "waves",
    "source_options": {"rows": 600, "count": 2},
    "target_options": {"rows": 500, "count": 3, "wave_seed": 1, "period": 12},
}


def read(ctx: DataContext, **options: Any) -> Dataset:
    return load(TransferConfig(**options), ctx)


def task(data: Dataset, **options: Any) -> Forecasting:
    config = ForecastingConfig.model_validate({"input_length": 48, "horizon": 12, **options})
    source = ModelSource("timeseries.random", {"patch": 8, "stride": 4}, lambda _: random_trunk(16, 2, 1))
    return Forecasting(config, data, source, DataContext.create(offline=True))


def test_it_trains_on_one_and_tests_on_the_other_each_by_its_own_training_rows(ctx: DataContext) -> None:
    data = read(ctx, **WAVES)
    train, val, test = (data.splits[split][0] for split in ("train", "val", "test"))
    assert (len(train.values), len(val.values), len(test.values)) == (600, 600, 500)
    assert (train.begin, train.end, test.begin, test.end) == (0, 420, 400, 500)
    assert len(train.channels) == 2 and len(test.channels) == 3 == len(data.card["channels"])
    made = task(data)
    for one, rows in ((train, 420), (val, 420), (test, 350)):
        mean, std = made.statistics(one)
        np.testing.assert_allclose(mean, one.values[:rows].mean(0))
        np.testing.assert_allclose(std, one.values[:rows].std(0))
    # new tables are the target's
    assert (
        made.scaler is not None
        and made.scaler.to_dict() == data.card["scaler"]
        and len(made.scaler.mean[0]) == 3
    )
    assert (
        data.card["period"] == 12
        and "the season is" in data.card["note"]
        and "(24 in the source)" in data.card["note"]
    )
    assert data.card["transfer"]["target"].startswith("waves count=3 period=12")


def test_a_window_is_of_its_own_data_set_and_the_naive_rows_know_the_targets_season(ctx: DataContext) -> None:
    made, alone = task(read(ctx, **WAVES)), task(waves.load(WavesConfig(**WAVES["target_options"]), ctx))
    made.prepare(("train", "test"))
    assert any("each of 2 channels in train, 3 channels in test" in note for note in made.notes)
    assert made.windows("train").windows == 420 - 48 - 12 + 1 and len(made.windows("train").channels) == 2
    for method, config in ((RepeatLast(), NaiveConfig()), (SeasonalNaive(), SeasonalConfig())):
        found, expected = (dict(score(one, method.build(one, config), "test", 256)) for one in (made, alone))
        assert found == pytest.approx(expected)


def test_few_shots_of_the_source_and_names_as_on_the_command_line(ctx: DataContext, write: Write) -> None:
    frame = pd.DataFrame(
        {"date": pd.date_range("2024-01-01", periods=200, freq="D").astype(str), "a": range(200)}
    )
    path = write(frame.to_csv(index=False), "sub/own.csv")
    few = read(ctx, source="waves", target="csv:sub/own.csv", source_options={"train_fraction": "0.1"})
    assert (
        len(few.splits["train"][0]) == 168 and few.card["frequency"] == "D" and few.card["channels"] == ["a"]
    )
    assert "frequencies h and D" in few.card["note"]
    # a file that is found from here is found from anywhere
    assert TransferConfig(target=f"csv:{path}").target == f"csv:{path}"
    assert (
        TransferConfig(target="m4:yearly").target == "m4:yearly"
        and TransferConfig(source="waves").source == "waves"
    )
    config = TransferConfig(**WAVES)
    assert TransferConfig.model_validate_json(config.model_dump_json()) == config
    whole = {read(ctx, **WAVES).fingerprint, read(ctx, **WAVES).fingerprint}
    other = read(ctx, **WAVES | {"source_options": {"rows": 600, "count": 2, "wave_seed": 3}})
    assert len(whole) == 1 and other.fingerprint not in whole


def test_a_path_from_here_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert TransferConfig(source="csv:own.csv").source == f"csv:{tmp_path / 'own.csv'}"


def test_what_does_not_fit_is_one_sentence(ctx: DataContext, write: Write) -> None:
    times = pd.date_range("2024-01-01", periods=200, freq="D").astype(str)
    write(pd.DataFrame({"date": times, "a": range(200), "off": 0}).to_csv(index=False))
    with pytest.raises(DataError) as error:
        read(ctx, source="waves", target="csv:x.csv", target_options={"known": "off"})
    assert str(error.value) == (
        "waves has the known covariates none, and csv:x.csv known=off has off: give both the same, by "
        "--data.source-options and --data.target-options"
    )
    with pytest.raises(DataError, match=r"no such file: .*none\.csv"):
        locate(TransferConfig(source="waves", target="csv:none.csv"), ctx)
    with pytest.raises(UnknownNameError, match="no data set is called 'wavez'"):
        locate(TransferConfig(source="wavez"), ctx)
    with pytest.raises(ConfigError, match=r"--data\.target-options rowz: no such option"):
        locate(TransferConfig(source="waves", target="waves", target_options={"rowz": 3}), ctx)
    with pytest.raises(
        DataError, match=r"^patterns holds no series to forecast: transfer takes data sets of fore"
    ):
        read(ctx, source="waves", target="patterns")


def test_a_run_is_trained_scored_and_scored_again(tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "task": {"name": "timeseries.forecasting", "input_length": 48, "horizon": 12},
            "method": "timeseries.least_squares",
            "data": {"name": "timeseries.transfer", **WAVES},
            "baselines": ["timeseries.repeat_last"],
            "out": tmp_path / "run",
            "device": "cpu",
            "report": False,
        }
    )
    result = execute(config)
    assert not any("error" in row for row in result.rows)
    assert result.record["data"]["card"]["transfer"]["source"] == "waves count=2 rows=600"
    assert evaluate_run(result.folder, get_registry()).exact
    # what is new is the target's: its channels, its scaling
    rows = waves.load(WavesConfig(**WAVES["target_options"]), DataContext.create(offline=True)).splits[
        "train"
    ][0]
    frame = pd.DataFrame(rows.values[:60], columns=list(rows.channels))
    frame.insert(0, "date", pd.date_range("2030-01-01", periods=60, freq="h"))
    frame.to_csv(tmp_path / "new.csv", index=False)
    (found,) = predict_run(tmp_path / "run", [tmp_path / "new.csv"])
    assert {row["channel"] for row in found["forecast"]} == set(rows.channels)


def test_it_keeps_the_laws(write: Write) -> None:
    times = pd.date_range("2024-01-01", periods=200, freq="D").astype(str)
    path = write(pd.DataFrame({"date": times, "a": range(200)}).to_csv(index=False))
    laws = ("offline", "no_pickle", "splits", "fingerprint", "indexing", "card")
    report = check("timeseries.transfer", laws=laws, options={"source": "waves", "target": f"csv:{path}"})
    assert report.ok and len(report.of("passed")) == len(laws), report.render()


def test_ettt_one_is_transferred_to_the_other(real: Path, tmp_path: Path) -> None:
    ctx = DataContext(real, tmp_path, offline=True)
    data, target = read(ctx), ETTH2.load(OfficialConfig(), ctx)
    assert data.copy is not None and data.copy.kind == "official" and check_dataset(data).ok
    assert data.card["scaler"] == target.card["scaler"] != ETTH1.load(OfficialConfig(), ctx).card["scaler"]
    made = task(data, input_length=96, horizon=96)
    assert [made.windows(split).windows for split in ("train", "val", "test")] == [8449, 2785, 2785]
    found = score(made, RepeatLast().build(made, NaiveConfig()), "test", 4096)
    assert found["mse"] == pytest.approx(0.4317, abs=5e-4)


def test_many_series_of_the_same_names_keep_their_own_scaling(real: Path, tmp_path: Path) -> None:
    ctx = DataContext(real, tmp_path, offline=True)
    files = {
        side: f"tsf:monash/{name}_yearly_dataset.tsf.gz"
        for side, name in (("source", "m3"), ("target", "m1"))
    }
    data = read(ctx, **files)
    train, test = data.splits["train"], data.splits["test"]
    assert isinstance(train, SeriesSplit) and isinstance(test, SeriesSplit)
    assert (len(train), len(test)) == (645, 181) and data.card["horizon"] == 6
    assert train[0].name == test[0].name == "T1" and "scaler" not in data.card
    for one, rows in (
        (train[0], train[0].values[: train[0].end]),
        (test[0], test[0].values[: test[0].begin - 6]),
    ):
        assert one.scaler is not None
        np.testing.assert_allclose(one.scaler.rows_for(one)[0], rows.mean(0))
