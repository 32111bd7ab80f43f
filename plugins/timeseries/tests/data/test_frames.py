"""pandas in Python: wide and long frames, with the checks of files."""

from __future__ import annotations

from collections.abc import Callable

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


def test_integers_with_missing_values_and_truth_values(table: Table) -> None:
    held = table().assign(a=pd.array([None, *range(59)], dtype="Int64"), b=[True, False] * 30)
    values = from_frame(held).splits["train"][0].values
    assert np.isnan(values[0, 0]) and values[1, 0] == 0 and values[:2, 1].tolist() == [1, 0]
