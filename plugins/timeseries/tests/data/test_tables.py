"""Wide tables: dialects of CSV, Parquet, what is refused in one sentence, covariates, and the splits of 70/10/20."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from peftx.data import files
from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError
from peftx_timeseries.config.data import CsvConfig
from peftx_timeseries.data.tables import load, locate

Write = Callable[..., Path]
Table = Callable[..., pd.DataFrame]


def read(path: Path, **options: Any) -> Dataset:
    return load(CsvConfig(path=path, **options), DataContext(None, path.parent / "cache", offline=True))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def values(data: Dataset) -> np.ndarray:
    return data.splits["train"][0].values


def test_a_table_becomes_one_series_split_in_time(write: Write, table: Table) -> None:
    data = read(write(table().to_csv(index=False)))
    rows = {name: (split[0].begin, split[0].end) for name, split in data.splits.items()}
    assert rows == {"train": (0, 42), "val": (42, 48), "test": (48, 60)}
    one = data.splits["test"][0]
    assert (
        one.channels == ("a", "b")
        and one.values.shape == (60, 2)
        and str(one.times[1]) == "2024-01-01T01:00:00"
    )
    assert one.values is data.splits["train"][0].values
    assert data.classes == () and data.card["frequency"] == "h" and data.card["period"] == 24
    assert data.card["scaler"]["mean"][0][0] == pytest.approx(np.arange(42).mean() / 2)
    assert data.splits["train"].extent == 42 and data.splits["train"].unit == "rows"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", "|"),
        lambda text: text.replace(",", ";").replace(".", ","),
        lambda text: text.replace(",", ", "),
        lambda text: text + "\n\n",
        lambda text: "\n" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("date", '"date"').replace("2024-01-02 00:00:00", '"2024-01-02 00:00:00"'),
        lambda text: text.replace("date,", "Timestamp,"),
        lambda text: text.replace("date,", "ds,"),
        lambda text: text.replace("date,", "when,"),
        lambda text: text.replace("date,", ","),
    ],
    ids=lambda change: "",
)
def test_dialects_give_the_same(write: Write, table: Table, change: Callable[[str], str]) -> None:
    plain = read(write(table().to_csv(index=False)))
    other = read(write(change(table().to_csv(index=False)), "y.csv"))
    assert np.array_equal(values(plain), values(other))
    assert (plain.splits["train"][0].times == other.splits["train"][0].times).all()


def test_other_ways_to_the_same_table(write: Write, table: Table, tmp_path: Path) -> None:
    text = table().to_csv(index=False)
    plain = values(read(write(text)))
    assert np.array_equal(values(read(write(gzip.compress(text.encode()), "x.csv.gz"))), plain)
    numbered = read(write(table().to_csv()))
    assert np.array_equal(values(numbered), plain) and "counts the rows, left out" in numbered.card["note"]
    assert read(write(text.replace("a,b", "a °C,b").encode("latin-1"))).card["channels"] == ["a °C", "b"]
    assert read(write(text.replace("a,b", "a °C,b"))).card["channels"] == ["a °C", "b"]
    pytest.importorskip("pyarrow")
    frame = table().assign(date=lambda held: pd.to_datetime(held["date"]))
    frame.to_parquet(tmp_path / "x.parquet")
    frame.set_index("date").to_parquet(tmp_path / "indexed.parquet")
    for name in ("x.parquet", "indexed.parquet"):
        assert np.array_equal(values(read(tmp_path / name)), plain), name


def test_it_may_lie_below_the_data_root(write: Write, table: Table, ctx: DataContext) -> None:
    write(table().to_csv(index=False), "sub/x.csv")
    locate(CsvConfig(path=Path("sub/x.csv")), ctx)
    assert len(load(CsvConfig(path=Path("sub/x.csv")), ctx).splits["train"]) == 1
    with pytest.raises(DataError, match=r"^no such file: .*none\.csv; a CSV or Parquet table was expected$"):
        locate(CsvConfig(path=Path("none.csv")), ctx)
    with pytest.raises(DataError, match=r"is a folder, but a CSV or Parquet table was expected$"):
        locate(CsvConfig(path=Path("sub")), ctx)


CELLS = "date,a,b\n2024-01-01,1,2\n2024-01-02,{},2\n2024-01-03,3,4\n"


@pytest.mark.parametrize("cell", ["", "NaN", "nan", "NA", "null", "?", "None", "N/A"])
def test_missing_cells_are_missing_values(write: Write, cell: str) -> None:
    text = CELLS.format(cell) + "".join(f"2024-01-{day:02},1,1\n" for day in range(4, 30))
    found = values(read(write(text)))
    assert np.isnan(found[1, 0]) and np.isfinite(found).sum() == found.size - 1


@pytest.mark.parametrize("cell", ["abc", "1,5", "12 kW", "--", "1.2.3", "0x10", "TRUE"])
def test_a_cell_that_is_no_number_is_named_by_row_and_column(write: Write, cell: str) -> None:
    shown = f'"{cell}"' if "," in cell else cell
    message = refused(write(CELLS.format(shown)))
    assert message == (
        f"x.csv: line 3 has {cell!r} in the column 'a', which is no number: correct it, leave the cell empty if the "
        "value is missing, or the column out with --data.drop a"
    )


def test_lines_are_those_of_the_file(write: Write) -> None:
    text = "\n\ndate,a\n2024-01-01,1\n\n2024-01-02,2\n\n2024-01-03,x\n"
    assert refused(write(text)).startswith("x.csv: line 8 has 'x' in the column 'a'")


def test_an_infinite_cell_is_named(write: Write) -> None:
    assert "line 3 has 'inf' in the column 'a', which is infinite" in refused(write(CELLS.format("inf")))
    said = "line 3 has '-1e+200' in the column 'a', which is too large for a measurement"
    assert said in refused(write(CELLS.format("-1e200")))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "x.csv is empty"),
        ("\n \n", "x.csv is empty"),
        ("date,a,b\n", "x.csv has a header and no rows"),
        ("1,2,3\n4,5,6\n", "x.csv has no header: its first line holds dates and numbers alone"),
        ("2024-01-01 00:00,5,6\n2024-01-01 01:00,5,6\n", "x.csv has no header: its first line"),
        (
            "a,b\n1,2\n3,4\n",
            "x.csv has no date column: none is called date, time, timestamp or ds, and the first, 'a', ",
        ),
        (
            "name,b\nfoo,2\nbar,4\n",
            "the first, 'name', begins with 'foo': name it with --data.time, or add one",
        ),
        ("date,a,a\n2024-01-01,1,2\n", "x.csv has two columns called 'a': rename or remove one"),
        ("date,a,\n2024-01-01,1,2\n", "x.csv: column 3 has no name in the header: give it one"),
        ("date,a\n2024-01-01,1,2\n", "x.csv: line 2 has 3 cells, but the header has 2: "),
        (
            "date,a,b\n2024-01-01,1,2\n2024-01-02,1\n",
            "x.csv: line 3 has 2 cells, but the header has 3: it is cut off",
        ),
        ("date\n2024-01-01\n2024-01-02\n", "x.csv has no column to forecast beside its times, 'date'"),
        ("date,a\n2024-01-01,1\n,2\n", "x.csv: line 3 has no time in the column 'date'"),
        ("date,a\n2024-01-01,1\nx,2\n", "x.csv: line 3 has 'x' in the column 'date', which is no time"),
        (b"date,a\n2024-01-01,\0\n", "x.csv: line 2 holds null bytes: it is damaged, or no CSV file"),
        ("date,a\n2024-01-01,1\n".encode("utf-16"), "x.csv is encoded as UTF-16: save it as UTF-8"),
        ("date,a\n" + "".join(f"2024-01-0{n},\n" for n in range(1, 6)), "the column 'a' has no value at all"),
        ("date,a\n2024-01-01,1\n2024-01-02,2\n", "x.csv: 2 times are too few to tell the frequency from"),
        (
            "date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-03,2\n",
            "x.csv has 3 rows, and needs some for each of the spl",
        ),
    ],
)
def test_bad_tables_are_one_sentence(write: Write, text: str | bytes, sentence: str) -> None:
    assert sentence in refused(write(text))


def test_damaged_files_are_one_sentence(write: Write, table: Table) -> None:
    packed = gzip.compress(table(500).to_csv(index=False).encode())
    assert "is damaged or not open to you" in refused(write(packed[: len(packed) // 2], "x.csv.gz"))
    assert "is damaged or not open to you" in refused(write(b"nonsense", "x.csv.gz"))
    pytest.importorskip("pyarrow")
    assert "is no Parquet file that can be read" in refused(write(b"nonsense" * 100, "x.parquet"))


def test_a_header_that_no_reader_takes_is_one_sentence(write: Write) -> None:
    assert "line 1 is no header (field larger than field limit" in refused(
        write("date," + "a" * 200_000 + "\n1,2\n")
    )


def test_what_unpacks_to_too_much_is_one_sentence(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_UNPACKED", 1_000_000)
    bomb = write(gzip.compress(b"date,a\n" + b"2024-01-01,1\n" * 200_000), "x.csv.gz")
    assert "x.csv.gz unpacks to more than 1,000,000 bytes" in refused(bomb)
    monkeypatch.setattr(files, "MOST_LINE", 10_000)
    assert "x.csv.gz: line 2 has more than 10,000 bytes" in refused(
        write(gzip.compress(b"date,a\n" + b"1" * 20_000), "x.csv.gz")
    )


def test_a_channel_without_a_value_in_training_is_refused(write: Write, table: Table) -> None:
    frame = table()
    frame.loc[:45, "b"] = np.nan
    message = refused(write(frame.to_csv(index=False)))
    assert message == "channel 'b' of x.csv has no value in its 42 training rows: leave it out"
    assert read(write(frame.to_csv(index=False)), drop=("b",)).card["channels"] == ["a"]


def test_a_constant_channel_is_kept_and_noted(write: Write, table: Table) -> None:
    data = read(write(table().assign(c=7.0).to_csv(index=False)))
    assert data.card["channels"] == ["a", "b", "c"] and "constant: c" in data.card["note"]
    assert data.card["scaler"]["std"][0][2] == 1


def test_irregular_rows_are_refused_by_line_and_mended_on_request(write: Write, table: Table) -> None:
    frame = table(80)
    path = write(frame.drop(index=[10, 11]).to_csv(index=False))
    assert refused(path).startswith(
        "x.csv: before line 12 (2024-01-01 12:00:00) 2 rows are missing, from 2024-01-01 10:0"
    )
    data = read(path, regular="fill")
    assert np.isnan(values(data)[10:12]).all() and "2 missing rows put in" in data.card["note"]
    shuffled = write(frame.sample(frac=1, random_state=0).to_csv(index=False))
    assert "comes after a later time" in refused(shuffled)
    assert np.array_equal(values(read(shuffled, regular="sort")), frame[["a", "b"]].to_numpy())
    double = write(pd.concat([frame[:5], frame[4:]]).to_csv(index=False))
    assert "line 7 (2024-01-01 04:00:00) has the time of line 6 again" in refused(double)
    assert len(values(read(double, duplicates="last"))) == 80
    kept = read(double, regular="keep", frequency="h")
    assert len(values(kept)) == 81 and kept.splits["train"][0].times is None


def test_days_of_23_and_25_hours_are_none_in_utc(write: Write) -> None:
    local = pd.date_range("2024-03-25", "2024-11-05", freq="h", tz="Europe/Berlin").tz_localize(None)
    path = write(pd.DataFrame({"date": local.astype(str), "a": range(len(local))}).to_csv(index=False))
    message = refused(path)
    assert "before line 148 (2024-03-31 03:00:00) 1 row is missing" in message
    assert message.endswith("--data.timezone Europe/Berlin")
    data = read(path, timezone="Europe/Berlin")
    assert data.card["frequency"] == "h" and str(data.splits["train"][0].times[0]) == "2024-03-24T23:00:00"
    assert values(data)[:, 0].tolist() == list(range(len(local)))


def test_whole_numbers_for_times_need_a_frequency_or_a_season(write: Write, table: Table) -> None:
    frame = table().assign(date=range(60))
    path = write(frame.to_csv(index=False))
    assert refused(path) == (
        "x.csv: the frequency is unknown, as its times only count the rows: give it with --data.frequency, such as h, "
        "15min, D, B, W-MON, MS, QS-JAN or YS-JAN, or the rows of a season with --data.period (1 for none)"
    )
    assert read(path, period=5).card["period"] == 5 and read(path, period=5).card["frequency"] == ""
    assert (
        read(path, frequency="h").card["period"] == 24
        and read(path, frequency="h").splits["val"][0].times is None
    )
    gap = write(frame.drop(index=[7]).to_csv(index=False))
    assert "before line 9 (8) 1 row is missing, from 7 on at the step 1" in refused(gap, period=5)
    assert np.isnan(values(read(gap, period=5, regular="fill"))[7]).all()


def test_an_unknown_frequency_says_what_to_give(write: Write) -> None:
    rng = np.random.default_rng(0)
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum(rng.integers(60, 9000, 50)), unit="s")
    path = write(pd.DataFrame({"date": times.astype(str), "a": range(50)}).to_csv(index=False))
    assert "the frequency cannot be told from the times" in refused(path)
    assert "'fortnight' is no frequency: give one such as h" in refused(path, frequency="fortnight")
    data = read(path, frequency="h", regular="fill", duplicates="mean")
    assert data.card["frequency"] == "h" and "moved to the beginning of their steps" in data.card["note"]


@pytest.mark.parametrize("name", ["index", "day", "Month", "year", "hour"])
def test_numbers_under_a_name_of_times_do_not_become_the_times(write: Write, table: Table, name: str) -> None:
    frame = table().rename(columns={"date": "when"})
    first = write(frame.assign(**{name: np.arange(60) % 31 + 1990}).to_csv(index=False))
    data = read(first)  # the dates are the times, and the numbers a channel
    assert data.card["channels"] == ["a", "b", name] and data.splits["train"][0].times is not None
    alone = frame.drop(columns="when").assign(**{name: range(1990, 2050)})
    assert (
        f"x.csv has no date column: none is called date, time, timestamp or ds, and '{name}' begins with '1990'"
        in (refused(write(alone.to_csv(index=False))))
    )
    ahead = alone[[name, "a", "b"]]
    assert f"and the first, '{name}', begins with '1990'" in refused(write(ahead.to_csv(index=False)))
    asked = read(write(ahead.to_csv(index=False)), time=name)
    assert asked.card["channels"] == ["a", "b"] and asked.card["frequency"] == "YS-JAN"
    dates = alone.assign(**{name: table()["date"]})
    assert read(write(dates.to_csv(index=False))).card["frequency"] == "h"


def test_a_long_table_is_told_from_a_wide_one(write: Write, table: Table) -> None:
    frame = table().rename(columns={"date": "ds", "a": "y"})
    path = write(frame.assign(unique_id="x")[["unique_id", "ds", "y"]].to_csv(index=False))
    assert refused(path) == (
        "x.csv has a column 'unique_id' of names: it is a long table; read it with timeseries.long, or leave the "
        "column out with --data.drop unique_id"
    )
    assert read(path, drop=("unique_id",)).card["channels"] == ["y"]
    numbered = write(frame.assign(unique_id=range(60)).to_csv(index=False))
    assert read(numbered).card["channels"] == ["y", "b", "unique_id"]


def test_covariates_are_columns_of_their_own(write: Write, table: Table) -> None:
    frame = table().assign(holiday=np.arange(60) % 2, wind=np.arange(60) * 3.0, note="text")
    frame.loc[3, "wind"] = np.nan
    path = write(frame.to_csv(index=False))
    assert "line 2 has 'text' in the column 'note'" in refused(path)
    data = read(path, known=("holiday",), past=("wind",), drop=("note",))
    one = data.splits["val"][0]
    assert one.channels == ("a", "b") and set(one.covariates) == {"holiday", "wind"}
    assert one.covariates["holiday"].tolist() == [0, 1] * 30 and np.isnan(one.covariates["wind"][3])
    assert data.card["known"] == ["holiday"] and data.card["past"] == ["wind"]
    assert data.fingerprint != read(path, known=("holiday",), drop=("note", "wind")).fingerprint
    assert data.fingerprint != read(path, known=("wind",), past=("holiday",), drop=("note",)).fingerprint
    assert data.card["scaler"]["covariates"]["channels"] == ["holiday", "wind"]
    assert read(path, channels=("b",)).card["channels"] == ["b"]


def test_columns_that_are_not_there_and_named_twice(write: Write, table: Table) -> None:
    path = write(table().to_csv(index=False))
    assert "x.csv has no column 'bb'." in refused(path, channels=("bb",))
    assert "x.csv has no column 'zzz'. Columns are date, a, b." in refused(path, known=("zzz",))
    assert "no column 'when'" in refused(path, time="when")
    assert "the column 'a' is among the channels and is a covariate" in refused(
        path, channels=("a",), past=("a",)
    )
    assert "no column to forecast" in refused(path, drop=("a",), known=("b",))
    with pytest.raises(ValidationError, match="a is both in known and in past"):
        CsvConfig(path=path, known=("a",), past=("a",))


def test_the_fingerprint_goes_with_values_times_and_splits(write: Write, table: Table) -> None:
    first = read(write(table().to_csv(index=False)))
    assert read(write(table().to_csv(index=False), "y.csv")).fingerprint != first.fingerprint  # another name
    assert read(write(table().to_csv(index=False))).fingerprint == first.fingerprint
    others = [
        read(write(table().assign(a=1.0).to_csv(index=False))),
        read(write(table(start="2023-01-01").to_csv(index=False))),
        read(write(table().to_csv(index=False)), test_fraction=0.3),
        read(write(table().to_csv(index=False)), period=12),
        read(write(table().to_csv(index=False)), train_fraction=0.5),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 6
