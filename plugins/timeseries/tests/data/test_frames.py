"""pandas in Python: wide and long frames, with the checks of files."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from peftx.errors import ConfigError, DataError
from peftx_timeseries.data.frames import from_frame, from_long

Table = Callable[..., pd.DataFrame]


def test_a_wide_frame_however_its_times_are_kept(table: Table) -> None:
    plain = table(freq="D")
    times = pd.to_datetime(plain["date"])
    indexed = plain.drop(columns="date").set_axis(pd.DatetimeIndex(times))
    made = [
        from_frame(plain),
        from_frame(plain.assign(date=times)),
        from_frame(indexed),
        from_frame(indexed.rename_axis("when")),
        from_frame(indexed.set_axis(indexed.index.to_period("D"))),
        from_frame(plain.set_axis(range(7, 67))),
        from_frame(plain.assign(date=times.dt.to_period("D"))),
    ]
    assert len({data.fingerprint for data in made}) == 1 and made[0].card["frequency"] == "D"
    assert made[0].name == "timeseries.csv:frame"


def test_a_long_frame_with_columns_or_an_index(table: Table) -> None:
    held = table(freq="D").melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    first = from_long(held, horizon=5)
    assert first.fingerprint == from_long(held.set_index(["unique_id", "ds"]), horizon=5).fingerprint
    assert first.fingerprint == from_long(held.set_index("unique_id"), horizon=5).fingerprint
    assert first.card["horizon"] == 5 and first.splits["test"].extent == 2


def test_rows_in_errors_are_counted_from_one(table: Table) -> None:
    held = table().astype({"a": object})
    held.loc[4, "a"] = "x"
    with pytest.raises(DataError, match=r"^sales: row 5 has 'x' in the column 'a', which is no number"):
        from_frame(held, name="sales")
    with pytest.raises(DataError, match="frame has no rows"):
        from_frame(table()[:0])
    with pytest.raises(DataError, match="two columns called 'a'"):
        from_frame(table().rename(columns={"b": "a"}))
    with pytest.raises(DataError, match="the column 'b' holds times, not numbers"):
        from_frame(table().assign(b=pd.Timestamp("2024-01-01")))


def test_one_series_and_cells_that_are_no_numbers_of_any_kind(table: Table) -> None:
    held = table().set_index("date")["a"]
    assert from_frame(held).card["channels"] == ["a"]
    assert from_frame(held.rename(None)).card["channels"] == ["value"]
    for strange in (1j, pd.Timedelta("1h"), [1], 10**400, "x"):
        with pytest.raises(
            DataError, match=r"frame: row 1 has .* in the column 'c', which is (no number|infinite)"
        ):
            from_frame(table().assign(c=pd.Series([strange] * 60)))


def test_options_are_those_of_files(table: Table) -> None:
    data = from_frame(table(), channels=("b",), past=("a",), train_fraction=0.5)
    assert data.card["channels"] == ["b"] and data.splits["train"].extent == 21
    with pytest.raises(ConfigError, match="chanels"):
        from_frame(table(), chanels=("b",))
    with pytest.raises(ConfigError, match="val_fraction"):
        from_frame(table(), val_fraction=2)
    with pytest.raises(ConfigError, match=r"^path: a frame has none"):
        from_frame(table(), path="x.csv")


def test_integers_with_missing_values_and_truth_values(table: Table) -> None:
    held = table().assign(a=pd.array([None, *range(59)], dtype="Int64"), b=[True, False] * 30)
    values = from_frame(held).splits["train"][0].values
    assert np.isnan(values[0, 0]) and values[1, 0] == 0 and values[:2, 1].tolist() == [1, 0]


@pytest.mark.parametrize(
    "cells",
    [
        pd.array([None, *range(59)], dtype="Int64"),
        pd.array([None, *range(59)], dtype="Float32"),
        pd.Series([None, *range(59)], dtype=object),
        pd.Series([pd.NA, *map(str, range(59))], dtype=object),
        pd.Series([None, *map(str, range(59))], dtype="string"),
        pd.Categorical([None, *range(59)]),
        pd.Categorical([None, *map(str, range(59))]),
        pd.Series([None, *map(Decimal, range(59))], dtype=object),
        pd.arrays.SparseArray([np.nan, *range(59)]),
    ],
    ids=lambda cells: type(cells).__name__,
)
def test_numbers_of_any_dtype_are_the_same_numbers(table: Table, cells: Any) -> None:
    values = from_frame(table().assign(a=cells)).splits["train"][0].values
    assert values.dtype == np.float64 and np.isnan(values[0, 0])
    assert values[1:, 0].tolist() == list(range(59))


@pytest.mark.parametrize("dtype", ["int64[pyarrow]", "double[pyarrow]", "string[pyarrow]"])
def test_numbers_of_arrow_are_numbers(table: Table, dtype: str) -> None:
    pytest.importorskip("pyarrow")
    cells = pd.Series([*range(60)]).astype(str if "string" in dtype else int).astype(dtype)
    assert from_frame(table().assign(a=cells)).splits["train"][0].values[:, 0].tolist() == list(range(60))


def test_times_of_any_dtype_are_the_same_times(table: Table) -> None:
    held, times = table(), pd.date_range("2024-01-01", periods=60, freq="h")
    columns: list[Any] = [
        times.astype("datetime64[s]"),
        pd.Series(times.to_pydatetime(), dtype=object),
        pd.Series(list(times.tz_localize("UTC")), dtype=object),
        pd.Categorical(times.astype(str)),
        times.tz_localize("UTC").tz_convert("Asia/Kolkata"),
        times.to_period("h"),
    ]
    try:
        import pyarrow

        del pyarrow
        columns += [
            times.astype(str).astype("string[pyarrow]"),
            pd.array(times, dtype="timestamp[us][pyarrow]"),
        ]
    except ImportError:
        pass
    frames = [held.assign(date=column) for column in columns]
    frames.append(held.drop(columns="date").set_axis(pd.Index(times.astype(str), dtype=object)))
    found = {from_frame(frame).fingerprint for frame in frames}
    assert found == {from_frame(held).fingerprint}


def test_days_of_a_zone_stay_days_and_hours_become_utc(table: Table) -> None:
    for freq, first in (("D", "2024-03-01T00:00:00"), ("h", "2024-02-29T23:00:00")):
        index = pd.date_range(
            "2024-03-01", periods=800, freq=freq, tz="Europe/Berlin"
        )  # over the change in March
        data = from_frame(pd.DataFrame({"a": range(800)}, index=index))
        assert data.card["frequency"] == freq and str(data.splits["train"][0].times[0]) == first
    days = pd.Series(pd.date_range("2024-01-01", periods=60).date, dtype=object)
    assert from_frame(table().assign(date=days)).card["frequency"] == "D"
    with pytest.raises(
        DataError, match=r"^frame: row 31 has .* a time with an offset from UTC, which those before"
    ):
        from_frame(table().assign(date=[*index[:30].tz_localize(None), *index[30:60]]))


def test_what_holds_no_numbers_is_named(table: Table) -> None:
    for cells in (
        pd.Categorical(["low", "high"] * 30),
        pd.interval_range(0, 60),
        pd.Series(["x"] * 60, dtype=object),
    ):
        with pytest.raises(DataError, match=r"^frame: row 1 has .* in the column 'a', which is no number"):
            from_frame(table().assign(a=cells))
    with pytest.raises(DataError, match="row 2 has no time in the column 'date'"):
        from_frame(table().assign(date=[pd.Timestamp("2024-01-01"), pd.NaT] * 30))
    for index in (pd.timedelta_range("0h", periods=60, freq="h"), pd.RangeIndex(60), np.arange(60) / 2):
        with pytest.raises(DataError, match="frame has no date column"):
            from_frame(table().drop(columns="date").set_axis(index))
    for strange in (np.zeros((3, 2)), [1, 2], None):
        with pytest.raises(
            DataError, match=r"^frame is a \w+, but a pandas DataFrame or Series was expected$"
        ):
            from_frame(strange)  # type: ignore[arg-type]


def test_series_may_be_named_by_numbers_and_categories(table: Table) -> None:
    plain = table(freq="D").melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    expected = from_long(plain, horizon=5).fingerprint
    category = pd.Categorical(plain["unique_id"], categories=["z", "b", "a"])  # one of them has no row
    assert from_long(plain.assign(unique_id=category), horizon=5).fingerprint == expected
    numbered = from_long(plain.assign(unique_id=plain["unique_id"].map({"a": 1, "b": 2})), horizon=5)
    assert [one.name for one in numbered.splits["train"].series] == ["1", "2"]
