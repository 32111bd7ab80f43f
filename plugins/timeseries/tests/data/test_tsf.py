"""Files of the Monash archive: their header, missing values, damage in one sentence, and the real ones."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftx.data import files
from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError
from peftx_timeseries.config.data import TsfConfig
from peftx_timeseries.data.tsf import load, parse_tsf, read_tsf

Write = Callable[..., Path]

FILE = """# A comment
#
@relation Sensors
@attribute series_name string
@attribute weight numeric
@attribute start_timestamp date
@frequency monthly
@horizon 2
@missing true
@equallength false
@data
T1:0.5:1990-01-31 00-00-00:1,2.5,?,4,5,-6e2
caf\u00e9:?:1992-02-01 00-00-00:1,2,3,4,5,6,7
"""


def read(path: Path, **options: Any) -> Dataset:
    return load(TsfConfig(path=path, **options), DataContext(None, path.parent / "cache", offline=True))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
def test_all_that_a_file_says_is_read(write: Write, encoding: str) -> None:
    header, series = read_tsf(write(FILE.encode(encoding), "x.tsf"))
    assert (header.relation, header.frequency, header.horizon) == ("Sensors", "monthly", 2)
    assert (header.missing, header.equal_length) == (True, False)
    assert dict(header.attributes) == {
        "series_name": "string",
        "weight": "numeric",
        "start_timestamp": "date",
    }
    assert series[0].attributes["weight"] == 0.5 and series[1].attributes["weight"] is None
    assert series[1].attributes["series_name"] == "caf\u00e9" and series[0].line == 12
    np.testing.assert_array_equal(series[0].values, [1, 2.5, np.nan, 4, 5, -600])


def test_it_becomes_a_data_set_split_at_its_horizon(write: Write) -> None:
    data = read(write(FILE, "x.tsf"))
    assert {name: [(one.begin, one.end) for one in split.series] for name, split in data.splits.items()} == {
        "train": [(0, 2), (0, 3)],
        "val": [(2, 4), (3, 5)],
        "test": [(4, 6), (5, 7)],
    }
    assert data.card["frequency"] == "MS" and data.card["period"] == 12 and data.card["horizon"] == 2
    first = data.splits["train"][0]
    assert [str(time)[:10] for time in first.times[:3]] == ["1990-01-31", "1990-02-28", "1990-03-31"]
    assert [one.name for one in data.splits["train"].series] == ["T1", "caf\u00e9"]
    assert read(write(FILE, "x.tsf"), horizon=1).card["horizon"] == 1
    assert (
        "horizon" not in read(write(FILE.replace("5,-6e2", "5,6,7,8,9,10"), "x.tsf"), split="fractions").card
    )


def test_packed_files_are_read_the_same(write: Write, tmp_path: Path) -> None:
    write(gzip.compress(FILE.encode()), "x.tsf.gz")
    for name, inside in (("one.zip", ["x.tsf"]), ("two.zip", ["x.tsf", "y.tsf"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in inside:
                archive.writestr(member, FILE)
    plain = read_tsf(write(FILE, "x.tsf"))[1]
    for name in ("x.tsf.gz", "one.zip"):
        for one, other in zip(read_tsf(tmp_path / name)[1], plain, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
    assert "two.zip holds 2 .tsf files, expected one" in refused(tmp_path / "two.zip")


def test_series_are_parsed_as_they_are_asked_for() -> None:
    def lines() -> Iterator[bytes]:
        yield from FILE.encode().splitlines(keepends=True)
        raise AssertionError("read further than asked")

    _, series = parse_tsf(lines(), "x")
    assert next(series).attributes["series_name"] == "T1"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("@data\n", "", "line 11 stands before @data and does not begin with @"),
        (FILE[FILE.index("@data") :], "", "x.tsf has no @data line: it is cut off, or no .tsf file"),
        (FILE[FILE.index("T1") :], "", "x.tsf has no series after @data"),
        ("2.5", "2.5x", "value 2 of the series on line 12 is '2.5x', which is no number"),
        (",4,5,-6e2", ",,5,6", "value 4 of the series on line 12 is '', which is no number"),
        ("1,2.5,?,4,5,-6e2", "", "the series on line 12 has no values"),
        ("1,2.5,?,4,5,-6e2", "?,?,?,?,?", "the series on line 12 has no value at all"),
        ("-6e2", "inf", "value 6 of line 12 is infinite"),
        ("-6e2", "-6e200", "value 6 of line 12 is too large for a measurement"),
        (
            ":0.5:",
            ":",
            "line 12 has 2 attributes before its values, but the header declares 3 (series_name, weight, ",
        ),
        (":0.5:", ":heavy:", "line 12 has the weight 'heavy', expected a number"),
        (
            "1990-01-31 00-00-00",
            "31.1.1990",
            "line 12 has the start_timestamp '31.1.1990', expected a time such as",
        ),
        ("@horizon 2", "@horizon two", "@horizon is 'two', expected a whole number from 1 on"),
        ("@missing true", "@missing maybe", "@missing is 'maybe', expected true or false"),
        ("@frequency monthly", "@frequency", "line 7 is '@frequency', expected @frequency and one word"),
        ("@frequency monthly", "@", "line 7 has the unknown tag @"),
        ("@frequency monthly", "@colour red", "line 7 has the unknown tag @colour"),
        (
            "@frequency monthly\n",
            "",
            "the frequency is unknown, as nothing in it says so: give it with --data.freq",
        ),
        ("@frequency monthly", "@frequency fortnightly", "'fortnightly' is no frequency"),
        (
            "weight numeric",
            "weight heavy",
            "line 5 is '@attribute weight heavy', expected @attribute NAME and one of",
        ),
        ("@horizon 2", "@horizon 3", "T1 has 6 rows, and needs at least 7"),
        ("T1", "T\0", "line 12 holds null bytes"),
    ],
)
def test_damage_is_one_sentence(write: Write, old: str, new: str, sentence: str) -> None:
    assert old in FILE
    assert sentence in refused(write(FILE.replace(old, new, 1), "x.tsf"))


def test_cut_archives_are_one_sentence(write: Write, tmp_path: Path) -> None:
    packed = gzip.compress(FILE.encode() * 1)
    assert "it is damaged or not open to you" in refused(write(packed[:-12], "x.tsf.gz"))
    assert "it is damaged; get it again" in refused(write(b"nonsense", "x.zip"))


def test_a_header_that_says_otherwise_than_its_values_is_noted(write: Write) -> None:
    note = read(write(FILE, "x.tsf")).card["note"]
    assert "Sensors by its header" in note and "the header says" not in note
    wrong = FILE.replace("@missing true", "@missing false").replace("@equallength false", "@equallength true")
    note = read(write(wrong, "x.tsf")).card["note"]
    assert "the header says that no value is missing, but 1 is" in note
    assert "the header says that all series are equally long, but they have 6 to 7 rows" in note
    whole = wrong.replace("?,4", "3,4").replace(",5,6,7", ",5,6")
    note = read(write(whole, "x.tsf")).card["note"]
    assert "the header says" not in note


def test_a_start_that_the_given_frequency_does_not_have_is_refused(write: Write) -> None:
    path = write(FILE, "x.tsf")
    assert refused(path, frequency="QE-DEC") == (
        "x.tsf: the series on line 12 begins at 1990-01-31, but the given frequency QE-DEC wants rows on the last day "
        "of March, June, September or December: give --data.frequency QS, which takes the day and month of each first "
        "row"
    )
    assert "the series on line 13 begins at 1992-02-01, but the given frequency ME wants" in refused(
        path, frequency="ME"
    )
    assert read(path, frequency="QS").card["period"] == 4


@pytest.mark.parametrize("name", ["x.tsf.gz", "x.zip"])
def test_a_line_that_unpacks_to_anything_is_one_sentence(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "MOST_LINE", 10_000)
    text = FILE.encode() + b"T3:1:1990-01-31 00-00-00:" + b"1," * 100_000
    path = write(gzip.compress(text), name)
    if name == "x.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.tsf", text)
    assert f"{name}: line 14 has more than 10,000 bytes: it is damaged" in refused(path)
    monkeypatch.setattr(files, "MOST_LINE", 1_000_000)
    monkeypatch.setattr(files, "MOST_UNPACKED", 100_000)
    assert f"{name} unpacks to more than 100,000 bytes" in refused(path)


def test_without_a_horizon_or_a_start(write: Write) -> None:
    text = FILE.replace("@horizon 2\n", "").replace("1990-01-31 00-00-00", "?")
    long = text.replace("5,-6e2", ",".join(map(str, range(5, 20)))).replace(
        "5,6,7", ",".join(map(str, range(5, 20)))
    )
    data = read(write(long, "x.tsf"))
    assert "horizon" not in data.card and data.splits["train"][0].times is None
    assert data.splits["train"][1].times is not None


@pytest.mark.parametrize(
    ("name", "series", "shortest", "longest", "horizon", "period"),
    [
        ("m1_yearly", 181, 15, 58, 6, 1),
        ("m1_quarterly", 203, 18, 114, 8, 4),
        ("m3_yearly", 645, 20, 47, 6, 1),
        ("m3_quarterly", 756, 24, 72, 8, 4),
        ("m3_monthly", 1428, 66, 144, 18, 12),
        ("m4_hourly", 414, 748, 1008, 48, 24),
        ("m4_weekly", 359, 93, 2610, 13, 52),
        ("tourism_yearly", 518, 11, 47, 4, 1),
        ("us_births", 1, 7305, 7305, None, 7),
        ("saugeenday", 1, 23741, 23741, None, 7),
    ],
)
def test_the_real_ones(
    real: Path, name: str, series: int, shortest: int, longest: int, horizon: int | None, period: int
) -> None:
    data = read(real / "monash" / f"{name}_dataset.tsf.gz")
    lengths = [len(one.values) for one in data.splits["train"].series]
    assert (len(lengths), min(lengths), max(lengths)) == (series, shortest, longest)
    assert data.card.get("horizon") == horizon and data.card["period"] == period
    assert all(np.isfinite(one.values).all() for one in data.splits["train"].series)
    if horizon:
        assert {len(one) for one in data.splits["test"].series} == {horizon}
