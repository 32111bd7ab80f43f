"""EuroSAT: drawn splits, and a class without images."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import EuroSatConfig
from peftx_vision.data.eurosat import load, locate


def context(tiny: Any) -> DataContext:
    return DataContext(tiny.root, tiny.root.parent / "cache", offline=True)


def test_the_splits_are_drawn_by_their_seed_and_of_every_class(tiny: Any) -> None:
    data = load(EuroSatConfig(), context(tiny))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "val": 10, "test": 10}
    for split in data.splits.values():
        assert set(split.labels) == set(range(10))  # type: ignore[arg-type]
    other = load(EuroSatConfig(split_seed=1), context(tiny))
    assert other.splits["test"].files != data.splits["test"].files  # type: ignore[attr-defined]
    assert "no official split" in data.card["note"]


@pytest.mark.parametrize("left", ["folder", "nothing"])
def test_a_class_without_images(tiny: Any, left: str) -> None:
    shutil.rmtree(tiny.folder / "2750" / "River")
    if left == "folder":
        (tiny.folder / "2750" / "River").mkdir()
    with pytest.raises(DataError, match=r"River holds no image: the copy of vision\.eurosat is incomplete"):
        locate(EuroSatConfig(), context(tiny))
