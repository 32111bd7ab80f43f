"""The synthetic faults: the same everywhere, each kind where its label says, and nothing in the normal rows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from peftx.data.contract import DataContext
from peftx.errors import DataError
from peftx_timeseries.config.anomaly import FaultsConfig
from peftx_timeseries.data.faults import KINDS, faults, load
from peftx_timeseries.series.marked import Marked, segments


def test_the_same_bits_everywhere_and_others_for_another_seed() -> None:
    values, labels = faults(1000, 3, 1, 0.1, 0)
    assert values.shape == (2000, 3) and labels.shape == (1000,)
    again, _ = faults(1000, 3, 1, 0.1, 0)
    assert (values == again).all()
    other, _ = faults(1000, 3, 1, 0.1, 1)
    assert not np.allclose(values, other)
    more, _ = faults(1000, 4, 1, 0.1, 0)
    assert (more[:1000, :3] == values[:1000]).all()  # a channel more leaves the others as they are
    digest = hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes() + labels.tobytes()).hexdigest()
    assert digest[:12] == "1afa6325d6f0"


def test_each_kind_comes_as_often_as_asked_and_as_long_as_said() -> None:
    _, labels = faults(4000, 8, 4, 0.1, 0)
    found = segments(labels)
    assert len(found) == 16
    for number, (shortest, longest) in enumerate(KINDS.values(), 1):
        own = [end - begin for begin, end in found if labels[begin] == number]
        assert len(own) == 4 and all(shortest <= rows <= longest for rows in own)
    assert (found[1:, 0] - found[:-1, 1] >= 10).all()  # a margin on both sides


def test_faults_are_where_their_labels_are_and_are_what_they_are_called() -> None:
    rows, count = 4000, 9
    struck, labels = faults(rows, count, 4, 0.0, 3)
    calm, _ = faults(rows, count, 1, 0.0, 3)
    unit = struck[:rows].std(0)
    # without noise a normal row is the same in both, unless the other draw of faults struck it
    test, found = struck[rows:], segments(labels)
    for begin, end in found:
        kind = list(KINDS)[labels[begin] - 1]
        steps = np.abs(np.diff(test[begin:end], axis=0))
        if kind == "flat":
            assert (steps.max(0) == 0).sum() == count // 3
        else:
            before = np.abs(test[begin] - test[begin - 1]) / unit
            after = np.abs(test[end] - test[end - 1]) / unit
            jumps = (before > 1.0) & (after > 1.0)
            assert jumps.sum() >= (count // 3 if kind in ("spike", "level_shift") else 0)
    assert (struck[:rows] == calm[:rows]).all()


def test_the_data_set_says_what_it_is() -> None:
    data = load(FaultsConfig(rows=1000, events=1), DataContext.create())
    test, train = data.splits["test"][0], data.splits["train"][0]
    assert isinstance(test, Marked) and test.labels is not None and set(test.labels) == {0, 1, 2, 3, 4}
    assert isinstance(train, Marked) and train.labels is None and len(train) == 800
    assert data.card["synthetic"] is True and data.card["kinds"] == list(KINDS)


def test_faults_without_room_are_refused() -> None:
    with pytest.raises(DataError, match=r"10 faults of 4 kinds need 5,200 test rows, and there are 1,000"):
        load(FaultsConfig(rows=1000, events=10), DataContext.create())
