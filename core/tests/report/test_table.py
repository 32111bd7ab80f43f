"""Tables: alignment, units, missing values."""

from __future__ import annotations

import pytest

from peftx.report.table import Column, Table, byte_size, count, percent, seconds


def test_columns_align_and_lines_end_without_blanks() -> None:
    table = Table(
        [Column("name", "name", left=True), Column("n", "parameters", count)],
        [{"name": "a long name", "n": 1234567}, {"name": "b", "n": None}, {"name": "c"}],
    )
    assert table.render().split("\n") == [
        "name         parameters",
        "-----------  ----------",
        "a long name   1,234,567",
        "b                     -",
        "c                     -",
    ]
    assert all(line == line.rstrip() for line in table.render().split("\n"))


def test_json_keeps_the_numbers() -> None:
    table = Table([Column("n", "n", count)], [{"n": 1234567, "other": 1}, {}])
    assert table.to_dict() == [{"n": 1234567}, {"n": None}]


def test_no_rows_is_a_heading() -> None:
    assert Table([Column("a", "a")], []).render() == "a\n-"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (300072, "293 KiB"),
        (3 * 2**20, "3.0 MiB"),
        (5 * 2**40, "5120 GiB"),
    ],
)
def test_bytes(size: int, text: str) -> None:
    assert byte_size(size) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (125.7, "2 min 05 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_percent_keeps_two_decimals() -> None:
    assert percent(98.888) == "98.89"
