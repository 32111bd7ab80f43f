"""Samples with classes: statistics of their channels, and lines through what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from peftx.errors import DataError
from peftx_timeseries.series.samples import SampleSplit, channel_scaler, interpolated, sample_fingerprint

NAN = np.nan


def split() -> SampleSplit:
    return SampleSplit([np.array([[1.0, 5], [3, 5]]), np.array([[NAN, 5], [8, NAN], [0, 5]])], [1, 0])


def test_samples_and_their_labels() -> None:
    held = split()
    assert held.labels.tolist() == [1, 0] and held.lengths.tolist() == [2, 3] and held[0][1] == 1
    assert held.select([1]).labels.tolist() == [0] and len(held.select([1])[0][0]) == 3
    with pytest.raises(IndexError):
        held[2]
    with pytest.raises(ValueError, match="2 samples and 1 labels"):
        SampleSplit(held.values, [0])


def test_statistics_are_those_of_all_observed_steps() -> None:
    scaler = channel_scaler(split())
    np.testing.assert_allclose(scaler.mean, [[3.0, 5.0]])
    # a constant channel has deviation 1
    np.testing.assert_allclose(scaler.std, [[np.std([1, 3, 8, 0]), 1.0]])
    with pytest.raises(DataError, match="channel 1 has no value in any of the 1 samples"):
        channel_scaler(SampleSplit([np.array([[NAN, 1.0]])], [0]))


def test_missing_values_are_on_a_line_between_their_neighbours() -> None:
    given = np.array([[NAN, NAN], [1, NAN], [NAN, NAN], [NAN, NAN], [4, NAN], [NAN, NAN]])
    np.testing.assert_allclose(interpolated(given)[:, 0], [1, 1, 2, 3, 4, 4])
    np.testing.assert_allclose(interpolated(given)[:, 1], 0)
    whole = np.ones((3, 2))
    assert interpolated(whole) is whole


def test_the_fingerprint_changes_with_values_labels_and_shapes() -> None:
    held = split()
    other = SampleSplit([held.values[0] + 1e-9, held.values[1]], [1, 0])
    flat = SampleSplit([held.values[0].reshape(1, 4), held.values[1]], [1, 0])
    found = {
        sample_fingerprint({"train": one}) for one in (held, other, flat, SampleSplit(held.values, [0, 0]))
    }
    assert len(found) == 4
