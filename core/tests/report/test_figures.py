"""Units, digits, dashes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.report.figures import DASH, amount, column, exact, finite, score, spread


@pytest.mark.parametrize(
    ("values", "kind", "unit", "texts"),
    [
        ([66_826, None, 1_290], "count", "", ["66,826", DASH, "1,290"]),
        ([267_304, 5_160, 3_236_392], "bytes", "KiB", ["261", "5", "3,161"]),
        ([512, 900], "bytes", "B", ["512", "900"]),
        ([3 * 2**30, 2**20], "bytes", "MiB", ["3,072", "1"]),
        ([151_574_020, 35_844, 135_597_572], "bytes", "MiB", ["145", "0.03", "129"]),
        ([0.0021, 0.0042], "seconds", "ms", ["2.10", "4.20"]),
        ([52.31, 93.5], "seconds", "s", ["52.3", "93.5"]),
        ([7_200.0, 10_800.0], "seconds", "min", ["120", "180"]),
        ([98.888, 100.0], "percent", "", ["98.89", "100.00"]),
        ([0.28, -0.835, 0.0], "gap", "", ["+0.28", "−0.83", "+0.00"]),
        ([1.183, 1.0], "ratio", "×", ["1.18", "1.00"]),
        ([0.01, 1e-05], "rate", "", ["0.01", "1e-05"]),
        ([0.06396, 0.10497], "plain", "", ["0.064", "0.105"]),
        ([], "bytes", "B", []),
        ([0, 0], "bytes", "B", ["0", "0"]),
    ],
)
def test_a_column_has_one_unit_and_one_number_of_decimals(values, kind, unit, texts) -> None:
    assert column(values, kind) == (unit, texts)


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=6), st.sampled_from(["bytes", "seconds"]))
def test_units_keep_the_value(values: list[float], kind: str) -> None:
    unit, texts = column(values, kind)
    sizes = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    size = (sizes | {"µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600})[unit]
    for value, text in zip(values, texts, strict=True):
        decimals = len(text.partition(".")[2])
        assert float(text.replace(",", "")) * size == pytest.approx(value, abs=0.51 * 10.0**-decimals * size)


@pytest.mark.parametrize("value", [None, "a", True, math.nan, math.inf, [], {}])
def test_what_is_no_figure_is_a_dash(value: object) -> None:
    assert finite(value) is None and exact(value) == ""
    assert column([value], "plain") == ("", [DASH])
    assert score(value, "%") == DASH and amount(value, "bytes") == DASH


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (66_826, "count", "66,826"),
        (285_696, "bytes", "279 KiB"),
        (76.4, "seconds", "76.4 s"),
        (612.0, "seconds", "10 min"),
        (7_380.0, "seconds", "2 h 03 min"),
        (98.05, "percent", "98.05 %"),
        (1.18, "ratio", "1.18×"),
    ],
)
def test_one_figure_carries_its_unit(value: float, kind: str, text: str) -> None:
    assert amount(value, kind) == text


def test_scores() -> None:
    assert score(97.772, "%") == "97.77"
    assert score(0.0639612, "nats") == "0.06396"
    assert exact(0.1 + 0.2) == "0.30000000000000004"


@pytest.mark.parametrize(
    ("mean", "sd", "unit", "text"),
    [
        (98.0512, 0.2449, "%", "98.05 ± 0.24"),
        (0.23991, 0.01136, "nats", "0.240 ± 0.011"),
        (12.3456, 3.2, "", "12.3 ± 3.2"),
        (1234.5, 87.0, "", "1234 ± 87"),
        (98.05, None, "%", "98.05"),
        (0.5, 0.0, "", "0.50 ± 0.00"),
        (None, None, "%", DASH),
    ],
)
def test_a_mean_has_as_many_digits_as_its_deviation_allows(mean, sd, unit, text) -> None:
    assert spread(mean, sd, unit) == text
