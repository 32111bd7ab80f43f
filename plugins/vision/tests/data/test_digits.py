"""The default data set: published counts, grey scale, and splits that seeds and fractions decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from peftx.data import DataContext
from peftx.data.checks import check_dataset
from peftx_vision.config.data import DigitsConfig
from peftx_vision.data.digits import load, locate

CTX = DataContext(None, Path("unused"), offline=True)


def test_digits_agree_with_the_published_counts() -> None:
    data = load(DigitsConfig(), CTX)
    assert check_dataset(data).ok and data.copy is not None and data.copy.kind == "counted"
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1079,
        "val": 359,
        "test": 359,
    }


def test_greys_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load(DigitsConfig(), CTX)
    image, label = data.splits["train"][0]
    assert image.shape == (8, 8) and image.dtype == np.uint8
    index = next(i for i, grey in enumerate(bunch.images) if np.array_equal(np.rint(grey * 255 / 16), image))
    assert bunch.target[index] == label
    assert max(int(split.images.max()) for split in data.splits.values()) == 255  # type: ignore[attr-defined]


def test_no_image_is_in_two_splits() -> None:
    data = load(DigitsConfig(), CTX)
    rows = [image.tobytes() for split in data.splits.values() for image, _ in split]
    assert len(rows) == 1797
    assert len(set(rows)) == len(rows)


def test_seeds_and_fractions_decide() -> None:
    one, again, other = (load(DigitsConfig(split_seed=seed), CTX) for seed in (0, 0, 1))
    assert one.fingerprint == again.fingerprint != other.fingerprint
    small = load(DigitsConfig(limit_train=100), CTX)
    assert len(small.splits["train"]) == 100
    assert np.bincount(np.asarray(small.splits["train"].labels)).tolist() == pytest.approx([10] * 10, abs=1)
    assert np.array_equal(np.asarray(small.splits["test"].labels), np.asarray(one.splits["test"].labels))
    halves = load(DigitsConfig(val_fraction=0.1, test_fraction=0.5), CTX)
    assert {name: len(split) for name, split in halves.splits.items()} == {
        "train": 719,
        "val": 180,
        "test": 898,
    }


def test_fractions_must_leave_something() -> None:
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        DigitsConfig(val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ValidationError):
        DigitsConfig(seed=1)  # type: ignore[call-arg]


def test_missing_scikit_learn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    from peftx.errors import DataError

    with pytest.raises(DataError, match="pip install scikit-learn"):
        locate(DigitsConfig(), CTX)
