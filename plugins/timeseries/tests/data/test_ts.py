"""Files of labelled series: what is read, and what is said of a damaged one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peftx.data import files
from peftx.errors import DataError
from peftx_timeseries.data.ts import parse_ts, read_ts

HEADER = (
    "#a description, in any words\n\n@problemName Small one\n@timeStamps false\n@missing true\n@univariate false\n"
    "@dimensions 2\n@equalLength false\n@classLabel true yes no\n@data\n"
)


def read(text: str, header: str = HEADER) -> list[tuple[list[list[float]], int | None]]:
    file = parse_ts((header + text).encode().splitlines(keepends=True), "x.ts")
    return [(one.values.tolist(), one.label) for one in file.samples]


def test_dimensions_steps_and_classes() -> None:
    assert read("1,2,3:4,5,6:no\n# a comment\n\n 7.5, -8e1 :9,1E2: yes \n") == [
        ([[1, 4], [2, 5], [3, 6]], 1),
        ([[7.5, 9], [-80, 100]], 0),
    ]


def test_missing_values_stay_and_padding_goes() -> None:
    ((values, label),) = read("?,1,NaN,nan,?:2,?,3,?,NaN:yes\n")
    assert label == 0 and len(values) == 3
    np.testing.assert_array_equal(values, [[np.nan, 2], [1, np.nan], [np.nan, 3]])


def test_what_a_header_may_leave_out() -> None:
    bare = "@classlabel TRUE a b\n@data\n"
    assert read("1,2:3,4:b\n", bare) == [([[1, 3], [2, 4]], 1)]
    assert read("1,2\n", "@univariate true\n@classLabel false\n@data\n") == [([[1], [2]], None)]
    assert read("1\n", "@problemname a\n@problemName b\n@dimension 1\n%another comment\n@data\n") == [
        ([[1]], None)
    ]


def test_a_header_that_is_wrong_without_being_damaged_is_noted() -> None:
    header = "@missing false\n@equalLength true\n@seriesLength 5\n@classLabel true a\n@data\n"
    file = parse_ts((header + "1,?,3:a\n").encode().splitlines(), "x.ts")
    assert file.notes == (
        "values are missing, and the header says that none is",
        "the header says 5 steps, and the longest sample has 3",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2:3,4:maybe\n", "line 11 ends in the class 'maybe', which is none of the header's (yes, no)"),
        ("1,2:3,4\n", "line 11 ends in the class '3,4', which is none"),
        ("1,2:yes\n", "line 11 has 1 dimensions, and the header says 2"),
        ("1,2:3,4:5,6:yes\n", "line 11 has 3 dimensions, and the header says 2"),
        ("1,2:3,4:no\n1,2:3:yes\n", "line 12 has 2 values in its first dimension and 1 in number 2"),
        ("1,2:3,x4:yes\n", "line 11, dimension 2: value 2 is 'x4', which is no number"),
        ("1,,2:3,4,5:yes\n", "line 11, dimension 1: value 2 is '', which is no number"),
        ("1 2,3:4,5:yes\n", "line 11, dimension 1: value 1 is '1 2', which is no number"),
        ("1,2?:3,4:yes\n", "line 11, dimension 1: value 2 is '2?', which is no number"),
        ("1,inf:3,4:yes\n", "line 11, dimension 1: value 2 is infinite"),
        ("1,2:1e200,4:yes\n", "line 11, dimension 2: value 1 is too large for a measurement"),
        ("?,?:?,NaN:yes\n", "line 11 has no value at all"),
        ("(0,1),(1,2):(0,3),(1,4):yes\n", "line 11 has time stamps"),
        ("1,\0:3,4:yes\n", "line 11 holds null bytes"),
        ("", "has no sample after @data"),
    ],
)
def test_a_damaged_sample_is_named_by_its_line(text: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        read(text)
    assert said in str(error.value) and str(error.value).startswith("x.ts") and "\n" not in str(error.value)


def test_in_a_file_of_equal_lengths_a_shorter_line_was_cut_off() -> None:
    header = "@equalLength true\n@classLabel true a\n@data\n"
    with pytest.raises(
        DataError, match=r"line 5 has 2 values, and line 4 has 3, while the header says that all"
    ):
        read("1,2,3:a\n1,2:a\n", header)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("1,2,3\n", "line 1 stands before @data"),
        ("@classlable true a\n@data\n", "line 1 has the unknown tag @classlable. Did you mean classlabel"),
        ("@timeStamps true\n@data\n", "line 1 says that values have time stamps, which are not read"),
        ("@univariate perhaps\n@data\n", "line 1 has @univariate 'perhaps', expected true or false"),
        ("@missing\n@data\n", "line 1 is @missing and says nothing behind it"),
        ("@dimensions 0\n@data\n", "line 1 has @dimensions '0', expected a whole number"),
        ("@seriesLength -3\n@data\n", "line 1 has @serieslength '-3', expected a whole number"),
        (
            "@univariate true\n@dimensions 3\n@data\n",
            "line 2 says 3 dimensions, and line 1 that it is univariate",
        ),
        ("@classLabel true\n@data\n", "line 1 says that samples have classes and names none"),
        ("@classLabel true a b a\n@data\n", "line 1 names the class 'a' twice"),
        ("@missing true\n@missing false\n@data\n", "line 2 says @missing again, after line 1"),
        ("@targetlabel true\n@data\n", "line 1 declares targets of a regression"),
    ],
)
def test_a_damaged_header_is_named_by_its_line(header: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        read("1,2,3\n", header)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_header_alone_was_cut_off() -> None:
    with pytest.raises(DataError, match=r"^x.ts has no @data line: it is cut off, or no .ts file$"):
        read("", "@classLabel true a\n")


def test_compressed_and_latin(write: Callable[..., Path]) -> None:
    text = "#d\xe9j\xe0 vu\n".encode("latin-1") + HEADER.encode() + b"1,2:3,4:no\n"
    plain, packed = write(text, "a_TRAIN.ts"), write(gzip.compress(text), "b_TRAIN.ts.gz")
    assert [one.values.tolist() for one in read_ts(plain).samples] == [[[1, 3], [2, 4]]]
    assert read_ts(packed).samples[0].label == 1 and read_ts(packed).header.name == "Small one"
    cut = write(gzip.compress(text)[:-20], "c_TRAIN.ts.gz")
    with pytest.raises(DataError, match=r"cannot read .*c_TRAIN.ts.gz"):
        read_ts(cut)


def test_a_line_without_an_end_is_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(gzip.compress(HEADER.encode() + b"1," * 5000), "d_TRAIN.ts.gz")
    monkeypatch.setattr(files, "MOST_LINE", 1000)
    with pytest.raises(DataError, match=r"line 11 has more than 1,000 bytes"):
        read_ts(path)
