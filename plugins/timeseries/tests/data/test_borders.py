"""Where splits begin and end, and what few-shot training keeps and is scaled by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from peftx.errors import DataError
from peftx_timeseries.config.data import OfficialConfig, SplitConfig
from peftx_timeseries.data.borders import at_horizon, by_fractions, divide
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit


def one(rows: int, name: str = "s") -> Series:
    values = np.random.default_rng(rows).normal(size=(rows, 2)).cumsum(0)
    return Series(name, values, ("a", "b"), covariates={"c": np.arange(rows, dtype=float)})


@given(st.integers(10, 100_000))
def test_seventy_ten_twenty_as_tslib_rounds_them(rows: int) -> None:
    train, test = int(rows * 0.7), int(rows * 0.2)
    assert by_fractions(rows) == {
        "train": (0, train),
        "val": (train, rows - test),
        "test": (rows - test, rows),
    }


@given(st.integers(1, 50), st.integers(1, 200))
def test_a_horizon_twice_and_the_rest(horizon: int, more: int) -> None:
    rows = 2 * horizon + more
    borders = at_horizon(rows, horizon)
    assert [end - begin for begin, end in borders.values()] == [more, horizon, horizon]
    assert [begin for begin, _ in borders.values()] == [0, more, more + horizon]


def test_a_horizon_splits_where_one_is_known_unless_fractions_are_asked_for() -> None:
    held = [one(100)]
    assert divide(held, SplitConfig(), 7).horizon == 7
    assert divide(held, SplitConfig(horizon=3), 7).horizon == 3
    parts = divide(held, SplitConfig(split="fractions"), 7)
    assert parts.horizon is None and parts.splits["test"][0].begin == 80
    with pytest.raises(DataError, match=r"a split at a horizon needs one: give --data\.horizon"):
        divide(held, SplitConfig(split="horizon"))
    with pytest.raises(ValidationError, match="horizon has no meaning with split fractions"):
        SplitConfig(split="fractions", horizon=3)
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        SplitConfig(val_fraction=0.5, test_fraction=0.5)


def test_rows_behind_the_last_value_are_no_rows_of_a_split() -> None:
    held = one(120)
    values = held.values.copy()
    values[100:] = np.nan
    values[50:60] = np.nan  # a gap is one
    parts = divide([replace(held, values=values)], SplitConfig())
    assert [parts.splits[name][0].end for name in ("train", "val", "test")] == [70, 80, 100]
    assert len(parts.splits["test"][0].covariates["c"]) == 100
    assert "20 rows behind the last value are left out" in parts.notes[0]
    assert divide([held], SplitConfig()).splits["test"][0].end == 120


def few(rows: int = 1000, **options: Any) -> tuple[Series, Any]:
    parts = divide([one(rows)], SplitConfig(**options))
    return parts.splits["train"][0], parts


def test_few_shot_keeps_the_first_rows_and_the_scaling_of_all() -> None:
    train, parts = few(train_fraction=0.1)
    assert (train.begin, train.end) == (0, 70) and parts.splits["val"][0].begin == 700
    whole = divide([one(1000)], SplitConfig()).splits["train"]
    np.testing.assert_array_equal(parts.scaler.mean, Scaler.fit(SeriesSplit(whole)).mean)
    assert "trained on the first 70 of 700 training rows, scaled by the whole split" in parts.notes
    _, kept = few(train_fraction=0.1, train_scaling="kept")
    assert kept.scaler is None and "scaled by them" in kept.notes[-1]


@pytest.mark.parametrize(("percent", "rows"), [(5, 751), (10, 1166)])
def test_few_shot_as_gpt4ts_counts_it(percent: int, rows: int) -> None:
    # (8640 - 336) * percent // 100 + 336 rows of ETTh1
    parts = divide([one(8640 * 10 // 7 + 1)], SplitConfig(train_fraction=percent / 100, train_context=336))
    assert int((8640 * 10 // 7 + 1) * 0.7) == 8640 and len(parts.splits["train"][0]) == rows


@given(st.integers(1, 100), st.integers(0, 300))
def test_whole_percents_are_counted_without_rounding(percent: int, context: int) -> None:
    train, _ = few(train_fraction=percent / 100, train_context=context)
    assert len(train) == context + (700 - context) * percent // 100


def test_the_last_rows_are_cut_off_from_what_was_before_them() -> None:
    train, parts = few(train_fraction=0.1, train_part="last")
    whole = parts.splits["val"][0]
    assert (train.begin, train.end, len(train.values)) == (0, 70, 70)
    np.testing.assert_array_equal(train.values, whole.values[630:700])
    assert train.covariates["c"][0] == 630
    assert len(whole.values) == 1000


@pytest.mark.parametrize("alone", [{"train_part": "last"}, {"train_scaling": "kept"}])
def test_what_is_about_a_part_is_refused_on_the_whole(alone: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give a train_fraction below 1"):
        SplitConfig.model_validate(alone)
    config = SplitConfig.model_validate(alone | {"train_fraction": 0.5})
    assert SplitConfig.model_validate_json(config.model_dump_json()) == config


def test_nothing_left_of_a_series_is_one_sentence() -> None:
    with pytest.raises(
        DataError, match=r"^a train_fraction of 0.001 leaves none of the 70 training rows of s$"
    ):
        few(100, train_fraction=0.001)
    assert OfficialConfig(train_fraction=1).train_fraction == 1
