"""The contract: subsets, the shape of a data set, what a context reads from the environment, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftx.data import DataContext, Dataset, Split, Subset
from peftx.errors import DataError
from peftx.runs.provenance import data_card


class Letters(Split[str]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < 5:
            raise IndexError(index)
        return "abcde"[index]

    @property
    def labels(self) -> list[int]:
        return [0, 1, 0, 1, 0]


def test_a_split_iterates_in_order() -> None:
    assert list(Letters()) == list("abcde")


def test_a_subset_maps_indices_and_labels() -> None:
    subset = Subset(Letters(), [3, 0])
    assert list(subset) == ["d", "a"]
    assert subset.labels == [1, 0]
    with pytest.raises(IndexError):
        subset[2]
    with pytest.raises(IndexError):
        subset[-1]


class Recordings(Letters):
    """A few long samples, of which seconds count."""

    @property
    def extent(self) -> int:
        return 300

    @property
    def unit(self) -> str:
        return "seconds"


def test_a_split_says_how_much_it_holds_and_of_what() -> None:
    assert (Letters().extent, Letters().unit) == (5, "samples")
    some = Letters().select([4, 1])
    assert list(some) == ["e", "b"] and (some.extent, some.unit) == (2, "samples")
    card = data_card(Dataset("x.y", {"train": Recordings(), "val": Recordings()}, (), "0"), "x.y")
    assert card["sizes"] == {"train": 300, "val": 300} and card["unit"] == "seconds"


@pytest.mark.parametrize("names", [["train"], ["val", "test"], ["train", "val", "dev"]])
def test_splits_are_train_and_val_or_test(names: list[str]) -> None:
    with pytest.raises(ValueError, match="must be train and val, test or both"):
        Dataset("x.y", {name: Letters() for name in names}, ("a", "b"), "0")


@pytest.mark.parametrize("names", [["train", "val"], ["train", "test"], ["train", "val", "test"]])
def test_val_may_be_missing_where_there_is_a_test_split(names: list[str]) -> None:
    assert list(Dataset("x.y", {name: Letters() for name in names}, ("a", "b"), "0").splits) == names


def test_context_reads_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTX_DATA", str(tmp_path))
    monkeypatch.delenv("PEFTX_OFFLINE", raising=False)
    assert DataContext.create() == DataContext(None, tmp_path, offline=False, seed=0)
    monkeypatch.setenv("PEFTX_OFFLINE", "1")
    assert DataContext.create(tmp_path, seed=3) == DataContext(tmp_path, tmp_path, offline=True, seed=3)
    monkeypatch.setenv("PEFTX_OFFLINE", "false")
    assert not DataContext.create().offline
    assert DataContext.create(offline=True).offline


def test_the_room_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, peftx.data, peftx.data.archives, peftx.data.cache, peftx.data.checks, peftx.data.fetch, "
        "peftx.data.splits; print([m for m in ('torch', 'numpy', 'pooch', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_data_root_that_is_no_folder(tmp_path: Path) -> None:
    assert DataContext(None, tmp_path).checked_root() is None
    assert DataContext(tmp_path, tmp_path).checked_root() == tmp_path
    with pytest.raises(DataError, match=r"the data root .*nowhere is not a folder"):
        DataContext(tmp_path / "nowhere", tmp_path).checked_root()
