"""Forecasts of new tables by a finished run: how they are read, how far ahead, how sure, and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from peftx.config.run import RunConfig
from peftx.errors import ConfigError, DataError
from peftx.plugins import get_registry
from peftx.runs import execute, predict
from peftx.runs.reload import evaluate
from peftx_timeseries.series.series import Series
from peftx_timeseries.tasks.predicting import times_ahead

LENGTH, HORIZON = 48, 12


def table(rows: int = 900, seed: int = 0, freq: str = "h", channels: int = 2) -> pd.DataFrame:
    """A daily wave and noise of deviation 1, 2 ... by channel; times as 1.2.2024 13:00."""
    draw = np.random.default_rng(seed)
    hours = np.arange(rows)
    frame = pd.DataFrame({"when": pd.date_range("2024-02-01", periods=rows, freq=freq)})
    for number in range(1, channels + 1):
        wave = 10 * np.sin(2 * np.pi * hours / 24 + number)
        frame[f"c{number}"] = 100 * number + wave + number * draw.normal(size=rows)
    return frame


def written(frame: pd.DataFrame, path: Path) -> Path:
    frame.assign(when=frame["when"].dt.strftime("%d.%m.%Y %H:%M")).to_csv(path, index=False)
    return path


def trained(folder: Path, data: dict[str, Any], **task: Any) -> Path:
    config = {
        "task": {"name": "timeseries", "input_length": LENGTH, "horizon": HORIZON, **task},
        "data": data,
        "model": {"name": "random", "patch": 8, "stride": 4, "width": 16, "heads": 2, "blocks": 1},
        "method": "timeseries.least_squares",
        "baselines": [],
        "device": "cpu",
        "offline": True,
        "efficiency": False,
        "out": folder,
    }
    if task.get("quantiles"):
        config |= {"method": "timeseries.one_for_all", "train": {"epochs": 1, "batch_size": 128}}
    return execute(RunConfig.model_validate(config)).folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose times and gaps need options to be read."""
    folder = tmp_path_factory.mktemp("wide")
    path = written(table().drop(index=[100, 101]), folder / "train.csv")
    options = {"time": "when", "time_format": "%d.%m.%Y %H:%M", "regular": "fill"}
    return trained(folder / "run", {"name": f"csv:{path}", **options})


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a long table with names of its own for the columns."""
    folder = tmp_path_factory.mktemp("long")
    many(("a", "b"), 500, folder / "train.csv")
    return trained(folder / "run", {"name": f"long:{folder / 'train.csv'}", "id": "shop", "target": "sold"})


def many(names: tuple[str, ...], rows: int, path: Path) -> Path:
    parts = []
    for number, name in enumerate(names):
        one = table(rows, number, channels=1).rename(columns={"when": "ds", "c1": "sold"})
        parts.append(one.assign(shop=name, sold=one["sold"] * (1 + number)))
    pd.concat(parts).to_csv(path, index=False)
    return path


def rows_of(run: Path, path: Path, **options: Any) -> tuple[pd.DataFrame, str]:
    (found,) = predict(run, [path], options={key.replace("__", "."): value for key, value in options.items()})
    return pd.DataFrame(found["forecast"]), "\n".join(found["notes"])


def test_a_new_table_is_read_as_the_runs_own_was(wide: Path, tmp_path: Path) -> None:
    card = json.loads((wide / "record.json").read_text())["data"]["card"]
    assert card["reading"] == {
        "layout": "wide",
        "time": "when",
        "time_format": "%d.%m.%Y %H:%M",
        "regular": "fill",
    }
    frame = table(200, 5)
    plain, notes = rows_of(wide, written(frame, tmp_path / "plain.csv"))
    assert list(plain.columns[:5]) == ["series", "channel", "step", "time", "forecast"]
    assert plain["time"].iloc[0] == "2024-02-09 08:00:00" and "missing" not in notes
    # days before months, rows out of order, a column that the run does not know, and its own in another order
    mixed = frame.sample(frac=1, random_state=0)[["c2", "when", "c1"]].assign(note="x")
    again, _ = rows_of(wide, written(mixed, tmp_path / "mixed.csv"))
    pd.testing.assert_frame_equal(
        again.drop(columns="series"), plain.drop(columns="series"), check_exact=False, rtol=1e-6
    )
    gaps, notes = rows_of(wide, written(frame.drop(index=[180, 181]), tmp_path / "gaps.csv"))
    assert "2 of the last 48 rows of 'c1' are missing" in notes and len(gaps) == len(plain)


def test_other_options_of_reading_win(wide: Path, tmp_path: Path) -> None:
    frame = table(200, 5).rename(columns={"when": "ds"})
    frame.to_csv(tmp_path / "iso.csv", index=False)
    with pytest.raises(DataError, match="has no column 'when'"):
        rows_of(wide, tmp_path / "iso.csv")
    with pytest.raises(DataError, match=r"is no time written as %d\.%m\.%Y %H:%M|which is no time"):
        rows_of(wide, tmp_path / "iso.csv", data__time="ds")
    found, _ = rows_of(wide, tmp_path / "iso.csv", data__time="ds", data__time_format="%Y-%m-%d %H:%M:%S")
    assert len(found) == 2 * HORIZON


def test_intervals_hold_about_as_much_as_they_promise(wide: Path, tmp_path: Path) -> None:
    record = json.loads((wide / "record.json").read_text())
    assert any(
        "intervals are split conformal" in note and "on test they hold" in note for note in record["notes"]
    )
    inside: dict[str, list[float]] = {"0.8": [], "0.95": []}
    whole = table(1400, 9)
    ends = range(300, 1300, 50)
    answers = predict(wide, [written(whole[:end], tmp_path / f"{end}.csv") for end in ends])
    for end, answer in zip(ends, answers, strict=True):
        found = pd.DataFrame(answer["forecast"])
        assert any("nominal, since a time series is not exchangeable" in note for note in answer["notes"])
        truth = np.concatenate([whole[name][end : end + HORIZON] for name in ("c1", "c2")])
        for level, held in inside.items():
            low, high = found[f"low{level}"], found[f"high{level}"]
            assert (low <= found["forecast"]).all() and (found["forecast"] <= high).all()
            held.append(float(((low <= truth) & (truth <= high)).mean()))
    assert np.mean(inside["0.8"]) == pytest.approx(0.8, abs=0.1)
    assert np.mean(inside["0.95"]) == pytest.approx(0.95, abs=0.05)
    # noise of another size in another channel: bounds are those of the channel
    width = (found["high0.8"] - found["low0.8"]).groupby(found["channel"]).mean()
    assert width["c2"] / width["c1"] == pytest.approx(2, rel=0.25)


def test_levels_are_those_that_were_kept(wide: Path, tmp_path: Path) -> None:
    path = written(table(200), tmp_path / "new.csv")
    found, _ = rows_of(wide, path, level="0.5,0.9")
    assert {"low0.5", "high0.5", "low0.9", "high0.9"} <= set(found.columns) and "low0.8" not in found
    assert (found["low0.9"] < found["low0.5"]).all()
    with pytest.raises(ConfigError, match=r"--level 0\.85: the run kept the bounds of 0\.5, 0\.6"):
        rows_of(wide, path, level="0.85")
    with pytest.raises(ConfigError, match="--level: must lie between 0 and 1"):
        rows_of(wide, path, level="80")


def test_fewer_rows_are_cut_and_more_are_iterated_on_request(wide: Path, tmp_path: Path) -> None:
    path = written(table(200), tmp_path / "new.csv")
    whole, _ = rows_of(wide, path)
    few, _ = rows_of(wide, path, horizon=5)
    pd.testing.assert_frame_equal(few, whole[whole["step"] <= 5].reset_index(drop=True))
    with pytest.raises(ConfigError, match="--horizon 30: the run forecasts 12 rows; --iterate goes on"):
        rows_of(wide, path, horizon=30)
    more, notes = rows_of(wide, path, horizon=30, iterate=True)
    assert "those from step 13 on are forecast from its own forecasts, and have no interval" in notes
    assert more["iterated"].tolist() == ([False] * 12 + [True] * 18) * 2
    assert more["low0.8"].isna().tolist() == more["iterated"].tolist()
    first = more[~more["iterated"]].drop(columns="iterated").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, whole)
    # the same as asking again with the forecast at the end of the table
    frame = table(200)
    behind = pd.DataFrame({"when": pd.to_datetime(whole["time"][:12]).to_numpy()})
    for name in ("c1", "c2"):
        behind[name] = whole[whole["channel"] == name]["forecast"].to_numpy()
    then, _ = rows_of(wide, written(pd.concat([frame, behind]), tmp_path / "then.csv"))
    for name in ("c1", "c2"):
        own = more[(more["channel"] == name) & more["step"].between(13, 24)]["forecast"]
        np.testing.assert_allclose(own, then[then["channel"] == name]["forecast"], rtol=1e-5)


def test_what_does_not_fit_the_run_is_one_sentence(wide: Path, tmp_path: Path) -> None:
    frame = table(200)
    refused: dict[str, tuple[pd.DataFrame, str]] = {
        "channels": (
            frame.rename(columns={"c2": "d2"}),
            r"has no column 'c2', and the run was trained on c1, c2",
        ),
        "short": (frame[:20], r"has 20 rows, and a forecast looks at the last 48: give a longer history"),
        "daily": (table(200, freq="D"), r"has a row every D, and the run was trained on rows every h"),
        "empty": (
            frame.assign(c1=frame["c1"].where(frame.index < 100)),
            r"the last 48 rows of 'c1' are all missing",
        ),
    }
    for name, (wrong, words) in refused.items():
        with pytest.raises(DataError, match=words) as caught:
            rows_of(wide, written(wrong, tmp_path / f"{name}.csv"))
        assert "\n" not in str(caught.value)
    far = frame.assign(c1=frame["c1"] * 1000)
    assert "'c1' lies" in rows_of(wide, written(far, tmp_path / "far.csv"))[1]


def test_rows_without_a_value_are_those_to_forecast(wide: Path, tmp_path: Path) -> None:
    frame = table(200)
    whole, _ = rows_of(wide, written(frame, tmp_path / "whole.csv"))
    later = pd.DataFrame({"when": pd.date_range(frame["when"].iloc[-1], periods=4, freq="h")[1:]})
    found, notes = rows_of(wide, written(pd.concat([frame, later]), tmp_path / "later.csv"))
    assert "the last 3 rows have no value in any channel" in notes
    assert found["time"].tolist() == whole["time"].tolist()
    np.testing.assert_allclose(found["forecast"], whole["forecast"], rtol=1e-6)


def test_times_of_a_zone_and_parquet(wide: Path, tmp_path: Path) -> None:
    frame = table(200)
    plain, _ = rows_of(wide, written(frame, tmp_path / "plain.csv"))
    local = frame.assign(
        when=frame["when"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin").dt.tz_localize(None)
    )
    zoned, notes = rows_of(wide, written(local, tmp_path / "local.csv"), data__timezone="Europe/Berlin")
    assert zoned["time"].tolist() == plain["time"].tolist()
    assert "times are UTC; those of the file are local times of Europe/Berlin" in notes
    pytest.importorskip("pyarrow")
    frame.assign(when=frame["when"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")).to_parquet(
        tmp_path / "new.parquet"
    )
    found, _ = rows_of(wide, tmp_path / "new.parquet")
    assert found["time"].tolist() == plain["time"].tolist()  # in UTC


def test_a_long_table_of_many_series(long: Path, tmp_path: Path) -> None:
    found, _ = rows_of(long, many(("b", "a"), 200, tmp_path / "new.csv"))
    assert found.groupby("series", sort=False).size().to_dict() == {"b": HORIZON, "a": HORIZON}
    path = many(("a", "c"), 200, tmp_path / "other.csv")
    with pytest.raises(
        DataError, match=r"no series 'c' was trained on.* --scaling own scales series by their own"
    ):
        rows_of(long, path)
    own, _ = rows_of(long, path, scaling="own")
    assert own[own["series"] == "c"]["forecast"].between(150, 250).all()


def test_a_file_of_the_archive(tmp_path: Path) -> None:
    def archive(name: str, rows: int, frequency: str = "hourly") -> Path:
        wave = 50 + 10 * np.sin(2 * np.pi * np.arange(rows) / 24)
        values = ",".join(f"{value:.3f}" for value in wave)
        lines = [f"@frequency {frequency}", "@attribute name string", "@attribute begin date", "@data"]
        lines += [f"{one}:2024-02-01 00-00-00:{values}" for one in ("a", "b")]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    run = trained(tmp_path / "run", {"name": f"tsf:{archive('train.tsf', 400)}"})
    found, _ = rows_of(run, archive("new.tsf", 100))
    assert found.groupby("series").size().to_dict() == {"a": HORIZON, "b": HORIZON}
    assert found["time"].iloc[0] == "2024-02-05 04:00:00"
    np.testing.assert_allclose(
        found["forecast"][:12], 50 + 10 * np.sin(2 * np.pi * np.arange(100, 112) / 24), atol=0.5
    )
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as packed:
        packed.write(tmp_path / "new.tsf", "new.tsf")
    pd.testing.assert_frame_equal(rows_of(run, tmp_path / "new.zip")[0], found)
    with pytest.raises(DataError, match="has a row every D, and the run was trained on rows every h"):
        rows_of(run, archive("daily.tsf", 100, "daily"))


def test_rows_that_are_taken_as_they_stand_are_told(wide: Path, tmp_path: Path) -> None:
    frame = table(200).drop(index=[50, 51])
    _, notes = rows_of(wide, written(frame, tmp_path / "gap.csv"), data__regular="keep")
    assert "gap.csv: rows taken as they stand, 1 of them not a step of h after the one before" in notes


def test_times_ahead_keep_the_day_of_the_first_row() -> None:
    days = np.array(["2023-12-30", "2024-01-30", "2024-02-29"], dtype="datetime64[s]")
    one = Series("s", np.zeros((3, 1)), ("c",), days)
    found = times_ahead(one, "MS", 2)
    assert found is not None and found.astype("datetime64[D]").astype(str).tolist() == [
        "2024-03-30",
        "2024-04-30",
    ]
    # rows that were taken as they stood go on from the last of them
    late = Series(
        "s", np.zeros((2, 1)), ("c",), np.array(["2024-01-01", "2024-01-05"], dtype="datetime64[s]")
    )
    found = times_ahead(late, "D", 1)
    assert found is not None and str(found[0])[:10] == "2024-01-06"


def test_a_quantile_head_gives_its_own_intervals(tmp_path: Path) -> None:
    path = written(table(400), tmp_path / "train.csv")
    options = {"time": "when", "time_format": "%d.%m.%Y %H:%M"}
    run = trained(
        tmp_path / "run", {"name": f"csv:{path}", **options}, quantiles=[0.1, 0.25, 0.5, 0.75, 0.9], stride=8
    )
    assert not (run / "calibration.json").exists()
    found, notes = rows_of(run, path)
    assert "conformal" not in notes
    for column, same in (("low0.8", "q0.1"), ("high0.8", "q0.9"), ("low0.5", "q0.25"), ("forecast", "q0.5")):
        assert (found[column] == found[same]).all()
    ordered = found[["q0.1", "q0.25", "q0.5", "q0.75", "q0.9"]].to_numpy()
    assert (np.diff(ordered, axis=1) >= 0).all()
    assert "quantiles cross in" in notes  # a head that was trained for a few steps alone
    only, _ = rows_of(run, path, level="0.5", horizon=20, iterate=True)
    assert "low0.8" not in only and only["q0.1"].isna().tolist() == only["iterated"].tolist()
    with pytest.raises(
        ConfigError, match=r"--level 0\.95: the run forecasts .* which make the levels 0\.5, 0\.8"
    ):
        rows_of(run, path, level="0.95")
    assert "Rolling-origin backtest" in (run / "report.html").read_text()


def test_a_run_that_was_moved_and_kept_nothing(wide: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(wide, tmp_path / "elsewhere"))
    path = written(table(200), tmp_path / "new.csv")
    before, _ = rows_of(run, path)
    (run / "calibration.json").unlink()
    found, notes = rows_of(run, path)
    assert "no intervals: the run kept no errors on validation" in notes and "low0.8" not in found
    assert evaluate(run, get_registry()).exact
    pd.testing.assert_frame_equal(rows_of(run, path)[0], before)


def test_a_picture_for_each_file(wide: Path, tmp_path: Path, page: Callable[[str], None]) -> None:
    (tmp_path / "one").mkdir()
    paths = [
        written(table(200), tmp_path / "new.csv"),
        written(table(100).drop(index=[70]), tmp_path / "one" / "new.csv"),
    ]
    found = predict(wide, paths, explain=tmp_path / "pictures", options={"horizon": 20, "iterate": True})
    assert [Path(one["explained"]).name for one in found] == ["new.csv.svg", "new.csv-2.svg"]
    for one in found:
        text = Path(one["explained"]).read_text()
        page(text)
        assert text.count("<title>forecast from forecasts</title>") == 2
        assert "prefers-color-scheme:dark" in text and "<script" not in text
