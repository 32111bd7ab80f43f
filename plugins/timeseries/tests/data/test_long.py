"""Long tables: series of any length, each regular by itself, with covariates; one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError
from peftx_timeseries.config.data import LongConfig
from peftx_timeseries.data.long import load, locate

Write = Callable[..., Path]


def frame(freq: str = "D", **lengths: int) -> pd.DataFrame:
    parts = []
    for at, (name, rows) in enumerate(lengths.items()):
        times = pd.date_range(f"202{at}-01-01", periods=rows, freq=freq)
        values = np.arange(rows) + 1000.0 * at
        parts.append(
            pd.DataFrame({"unique_id": name, "ds": times.astype(str), "y": values, "promo": at + 0.5})
        )
    return pd.concat(parts, ignore_index=True)


def read(path: Path, **options: Any) -> Dataset:
    return load(LongConfig(path=path, **options), DataContext(None, path.parent / "cache", offline=True))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_series_of_any_length_in_the_order_of_their_first_rows(write: Write) -> None:
    held = frame(late=50, early=30)
    mixed = held.sample(frac=1, random_state=1).sort_values("ds", kind="stable")
    data = read(write(mixed.to_csv(index=False)), horizon=7)
    train, test = data.splits["train"], data.splits["test"]
    assert [one.name for one in train.series] == ["late", "early"]
    assert [(one.begin, one.end) for one in train.series] == [(0, 36), (0, 16)]
    assert [(one.begin, one.end) for one in test.series] == [(43, 50), (23, 30)]
    assert train[1].values[:, 0].tolist() == [1000.0 + row for row in range(30)]
    assert str(train[1].times[0]) == "2021-01-01T00:00:00" and train[0].channels == ("y",)
    assert data.card["horizon"] == 7 and data.card["frequency"] == "D" and data.card["series"] == 2
    assert data.splits["train"].extent == 2 and data.splits["train"].unit == "series"
    assert "columns left out: promo" in data.card["note"]


def test_fractions_are_of_each_series(write: Write) -> None:
    data = read(write(frame(a=100, b=10).to_csv(index=False)))
    assert [(one.begin, one.end) for one in data.splits["val"].series] == [(70, 80), (7, 8)]
    assert "horizon" not in data.card


def test_covariates_and_other_names(write: Write) -> None:
    held = frame(a=40, b=40).rename(columns={"unique_id": "shop", "ds": "day", "y": "sales"})
    path = write(held.to_csv(index=False))
    assert "has no column 'unique_id' that says which series" in refused(path)
    assert "has no column 'y' to forecast" in refused(path, id="shop")
    data = read(path, id="shop", target="sales", known=("promo",))
    assert data.splits["train"][1].covariates["promo"].tolist() == [1.5] * 40 and data.card["known"] == [
        "promo"
    ]
    assert "a column is named twice" in refused(path, id="shop", target="shop")
    assert "no column 'weather'" in refused(path, id="shop", target="sales", past=("weather",))


def test_each_series_is_made_regular_by_itself(write: Write) -> None:
    held = frame(a=40, b=40)
    path = write(held.drop(index=[50, 51]).to_csv(index=False))
    assert refused(path) == (
        "x.csv, series b: before line 52 (2021-01-13) 2 rows are missing, from 2021-01-11 on at the frequency D: give "
        "--data.regular fill, which takes them for missing values, or keep, which takes the rows as they "
        "stand"
    )
    data = read(path, regular="fill")
    assert (
        np.isnan(data.splits["train"][1].values[10:12]).all()
        and "b: 2 missing rows put in" in data.card["note"]
    )
    double = write(pd.concat([held, held[-1:]]).to_csv(index=False))
    assert "x.csv, series b: line 82 (2021-02-09) has the time of line 81 again" in refused(double)


def test_quarters_that_begin_in_different_months_are_quarters(write: Write) -> None:
    parts = [
        pd.DataFrame(
            {"unique_id": name, "ds": pd.date_range(start, periods=20, freq="QS-JAN").astype(str), "y": 1.0}
        )
        for name, start in (("a", "2000-01-01"), ("b", "2001-04-01"))
    ]
    parts.append(
        parts[0].assign(unique_id="c", ds=pd.date_range("2000-02-01", periods=20, freq="QS-FEB").astype(str))
    )
    data = read(write(pd.concat(parts).to_csv(index=False)), horizon=4)
    assert data.card["period"] == 4 and len(data.splits["test"]) == 3


def test_whole_numbers_for_times_count_rows(write: Write) -> None:
    held = frame(a=30, b=20)
    held["ds"] = [*range(1, 31), *range(5, 25)]
    path = write(held.to_csv(index=False))
    assert "the frequency is unknown, as its times only count the rows" in refused(path)
    data = read(path, frequency="W", horizon=3)
    assert (
        data.card["frequency"] == "W" and data.card["period"] == 52 and data.splits["train"][0].times is None
    )


def test_series_too_short_to_split(write: Write) -> None:
    path = write(frame(a=40, tiny=14, b=40).to_csv(index=False))
    assert refused(path, horizon=7) == (
        "tiny has 14 rows, and needs at least 15, to train on one: leave such series out with --data.too-short drop, "
        "or take a shorter --data.horizon"
    )
    data = read(path, horizon=7, too_short="drop")
    assert [one.name for one in data.splits["train"].series] == ["a", "b"]
    assert "1 series too short to split left out" in data.card["note"]
    assert "none of the 3 series has enough rows" in refused(path, horizon=30, too_short="drop")


def test_a_split_without_a_value_scores_nothing(write: Write) -> None:
    held = frame(one=40, two=50)
    held.loc[[*range(33, 40), *range(83, 90)], "y"] = np.nan  # rows to come, with their covariates
    ahead = read(write(held.to_csv(index=False)), horizon=7, known=("promo",))
    assert [one.end for one in ahead.splits["test"].series] == [33, 43]  # which are no rows to be scored on
    held.loc[[*range(19, 26), *range(69, 76)], "y"] = np.nan
    assert refused(write(held.to_csv(index=False)), horizon=7, known=("promo",)).endswith(
        "not one of the val rows has a value, so nothing can be scored there: leave such rows out, or split elsewhere"
    )
    held.loc[69, "y"] = 1.0  # of one series is enough
    assert len(read(write(held.to_csv(index=False)), horizon=7).splits["val"]) == 2


def test_bad_rows_are_one_sentence(write: Write) -> None:
    held = frame(a=40, b=40)
    held.loc[45, "unique_id"] = None
    assert "x.csv: line 47 has no series in the column 'unique_id'" in refused(
        write(held.to_csv(index=False))
    )
    held = frame(a=40, b=40).astype({"y": object})
    held.loc[45, "y"] = "many"
    assert "x.csv: line 47 has 'many' in the column 'y'" in refused(write(held.to_csv(index=False)))
    held = frame(a=40, b=40)
    held.loc[40:, "y"] = np.nan
    assert "x.csv: the series b has no value at all: remove its rows" in refused(
        write(held.to_csv(index=False))
    )
    with pytest.raises(DataError, match="no such file"):
        locate(LongConfig(path=Path("none")), DataContext(None, Path("."), offline=True))


def test_parquet_is_read_the_same(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    held = frame(a=40, b=20)
    held.assign(ds=pd.to_datetime(held["ds"])).to_parquet(tmp_path / "x.parquet")
    one = read(tmp_path / "x.parquet", horizon=3)
    other = read(write(held.to_csv(index=False), "x.csv"), horizon=3)
    assert one.fingerprint == other.fingerprint


def test_local_times_of_each_series_become_utc(write: Write) -> None:
    local = (
        pd.date_range("2024-10-26", periods=72, freq="h", tz="Europe/Berlin").tz_localize(None).astype(str)
    )
    held = pd.concat([pd.DataFrame({"unique_id": name, "ds": local, "y": range(72)}) for name in "ab"])
    path = write(held.to_csv(index=False))
    assert "has the time of line" in refused(path)
    data = read(path, timezone="Europe/Berlin")
    assert (np.diff(data.splits["train"][1].times).astype(int) == 3600).all()
