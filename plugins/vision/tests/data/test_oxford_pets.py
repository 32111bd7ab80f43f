"""Oxford-IIIT Pet: one sentence for each way its lists can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import TrainTestConfig
from peftx_vision.data.oxford_pets import RELEASE, load, locate
from peftx_vision.data.released_classes import PETS


def context(tiny: Any) -> DataContext:
    return DataContext(tiny.root, tiny.root.parent / "cache", offline=True)


def test_the_classes() -> None:
    assert len(PETS) == 37 and list(PETS) == sorted(PETS, key=str.lower)
    assert RELEASE.published.classes[1] == "American Bulldog"


def test_comments_are_passed_over(tiny: Any) -> None:
    path = tiny.folder / "annotations" / "test.txt"
    path.write_text("#Image CLASS-ID SPECIES BREED ID\n\n" + path.read_text())
    assert len(load(TrainTestConfig(), context(tiny)).splits["test"]) == 37


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Abyssinian_7 1 1", "line 38: expected BREED_NUMBER CLASS SPECIES BREED, got 'Abyssinian_7 1 1'"),
        ("Abyssinian_7 38 1 1", r"line 38: the class 38 is outside 1 \.\. 37"),
        ("Abyssinian_7 0 1 1", r"line 38: the class 0 is outside 1 \.\. 37"),
        ("Abyssinian_7 2 1 1", "line 38: Abyssinian_7 has the class 2, which is american_bulldog"),
        ("../Abyssinian_7 1 1 1", "line 38: ../Abyssinian_7 has the class 1"),
        ("Abyssinian_0 1 1 1", r"test\.txt lists Abyssinian_0\.jpg, which trainval\.txt lists too"),
    ],
)
def test_a_line_that_is_wrong(tiny: Any, line: str, sentence: str) -> None:
    path = tiny.folder / "annotations" / "test.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=sentence) as caught:
        locate(TrainTestConfig(), context(tiny))
    assert "\n" not in str(caught.value)


def test_an_empty_list(tiny: Any) -> None:
    (tiny.folder / "annotations" / "trainval.txt").write_text("")
    with pytest.raises(DataError, match=r"trainval\.txt lists no image"):
        locate(TrainTestConfig(), context(tiny))
