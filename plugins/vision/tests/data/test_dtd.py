"""DTD: its ten splits, and one sentence for each way its lists can be wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import DtdConfig
from peftx_vision.data.dtd import load, locate
from peftx_vision.data.released_classes import DTD


def context(tiny: Any) -> DataContext:
    return DataContext(tiny.root, tiny.root.parent / "cache", offline=True)


def test_a_fold_is_another_split_of_the_same_images(tiny: Any) -> None:
    first, second = (load(DtdConfig(fold=fold), context(tiny)) for fold in (1, 2))
    assert (first.card["note"], second.card["note"]) == (
        "official split 1 of 10",
        "official split 2 of 10",
    )
    assert first.splits["test"].files == second.splits["train"].files  # type: ignore[attr-defined]
    assert first.fingerprint != second.fingerprint
    with pytest.raises(DataError, match=r"labels has no train3\.txt"):
        locate(DtdConfig(fold=3), context(tiny))
    for fold in (0, 11):
        with pytest.raises(ValidationError):
            DtdConfig(fold=fold)


def test_the_classes() -> None:
    assert len(DTD) == 47 and list(DTD) == sorted(DTD)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "nothing/nothing_1.jpg",
            "line 48: expected CLASS/NAME.jpg of a class of DTD, got 'nothing/nothing_1",
        ),
        ("banded", "line 48: expected CLASS/NAME.jpg of a class of DTD, got 'banded'"),
        ("../banded/x.jpg", "line 48: the path '../banded/x.jpg' leads outside"),
        ("banded/gone.jpg", "lists banded/gone.jpg, but there is no such image"),
        ("banded/banded_train0.jpg", r"test1.txt lists banded/banded_train0.jpg, which train1.txt lists too"),
    ],
)
def test_a_line_that_is_wrong(tiny: Any, line: str, sentence: str) -> None:
    path = tiny.folder / "labels" / "test1.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=sentence) as caught:
        load(DtdConfig(), context(tiny))
    assert "\n" not in str(caught.value)


def test_an_empty_list(tiny: Any) -> None:
    (tiny.folder / "labels" / "val1.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val1\.txt lists no image"):
        locate(DtdConfig(), context(tiny))
