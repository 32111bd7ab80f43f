"""Windows of all channels: every row counts exactly once, and none leaves its split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftx.errors import DataError
from peftx_timeseries.series.blocks import Blocks
from peftx_timeseries.series.marked import Marked, demand_marked, labels_of, with_labels
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit


def series(rows: int, name: str = "x", begin: int = 0, labels: bool = True) -> Marked:
    values = np.stack([np.arange(rows, dtype=np.float64), np.ones(rows)], 1)
    return Marked(
        name,
        values,
        ("a", "b"),
        begin=begin,
        labels=(np.arange(rows) % 3 == 0).astype(np.int8) if labels else None,
    )


def plain(one: Series) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(2), np.ones(2)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(7, 40), min_size=1, max_size=3), st.integers(1, 7), st.data())
def test_every_row_counts_and_with_whole_strides_in_one_window(
    rows: list[int], length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, length))
    split = SeriesSplit([series(count, f"s{at}") for at, count in enumerate(rows)])
    blocks = Blocks(split, length, plain, stride=stride)
    counted = np.zeros(blocks.rows, dtype=int)
    for places, skip in zip(blocks.places(np.arange(len(blocks))), blocks.skip, strict=True):
        counted[places[skip:]] += 1
        assert len(set(blocks.owner[places])) == 1  # no window reaches into the next series
    assert (counted >= 1).all()
    assert blocks.rows == sum(rows)
    if stride == length:
        assert (counted == 1).all()


def test_windows_hold_the_rows_of_the_split_alone() -> None:
    blocks = Blocks(SeriesSplit([series(20, begin=9)]), 5, plain, stride=5)
    assert blocks.cut(np.arange(len(blocks)))[:, :, 0].tolist() == [
        [9, 10, 11, 12, 13],
        [14, 15, 16, 17, 18],
        [15, 16, 17, 18, 19],
    ]
    assert blocks.skip.tolist() == [0, 0, 4]
    assert blocks.labels is not None and blocks.labels.tolist() == [(row % 3 == 0) for row in range(9, 20)]


def test_values_are_standardised_by_the_training_rows() -> None:
    train = SeriesSplit([series(10)])
    blocks = Blocks(train, 5, Scaler.fit(train).rows_for, stride=5)
    assert blocks.values[:, 0] == pytest.approx((np.arange(10) - 4.5) / np.arange(10).std(), abs=1e-6)
    assert (blocks.values[:, 1] == 0).all()  # a constant channel


def test_a_series_shorter_than_a_window_is_named() -> None:
    with pytest.raises(DataError, match=r"^x has 4 test rows, fewer than a window of 5: .*--task\.length$"):
        Blocks(SeriesSplit([series(4)]), 5, plain, stride=5, what="test")


def test_a_missing_value_is_named() -> None:
    one = series(10)
    one.values[6, 1] = np.nan
    with pytest.raises(DataError, match=r"x: row 7 of channel 'b' is missing"):
        Blocks(SeriesSplit([one]), 5, plain, stride=5)


def test_a_stride_that_leaves_rows_out_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves rows out"):
        Blocks(SeriesSplit([series(10)]), 5, plain, stride=6)


def test_labels_follow_their_rows() -> None:
    one = series(10)
    assert one.rows(3, 6).labels is one.labels and len(one.rows(3, 6)) == 3
    cut = one.rows(2, 6).until_end()
    assert cut.labels is not None and len(cut.labels) == len(cut.values) == 6
    assert labels_of(SeriesSplit([one.rows(3, 6), one.rows(0, 2)])).tolist() == [1, 0, 0, 1, 0]  # type: ignore[union-attr]
    assert labels_of(SeriesSplit([one, series(5, labels=False)])) is None
    assert labels_of(SeriesSplit([Series("y", one.values, one.channels)])) is None
    with pytest.raises(ValueError, match="3 labels for 10 rows"):
        Marked("x", one.values, one.channels, labels=np.zeros(3, np.int8))


def test_a_fingerprint_changes_with_a_label() -> None:
    one, other = series(10), series(10)
    assert other.labels is not None
    same = with_labels("f", {"test": SeriesSplit([one])})
    assert with_labels("f", {"test": SeriesSplit([other])}) == same
    other.labels[1] = 1
    assert with_labels("f", {"test": SeriesSplit([other])}) != same
    assert with_labels("f", {"test": SeriesSplit([series(10, labels=False)])}) != same


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="the rows of it have no labels"):
        demand_marked(SeriesSplit([series(5, labels=False)]), "it")
    calm = Marked("x", np.zeros((5, 1)), ("a",), labels=np.zeros(5, np.int8))
    with pytest.raises(DataError, match="none of the 5 rows of it is labelled as anomalous"):
        demand_marked(SeriesSplit([calm]), "it")
    with pytest.raises(DataError, match="no time series"):
        demand_marked([1, 2], "it")
