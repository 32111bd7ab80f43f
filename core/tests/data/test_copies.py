"""What was read against what was published: whole, partial, altered, and what a result says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from peftx.data import Copy, Dataset, Published, Split, compare_copy
from peftx.data.checks import check_dataset
from peftx.data.copies import named_whole
from peftx.runs.provenance import data_card

PUBLISHED = Published({"train+val": 50_000, "test": 10_000})


class Nothing(Split[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < 2:
            raise IndexError(index)
        return index


@pytest.mark.parametrize(
    ("held", "checksums", "kind", "detail"),
    [
        ((45_000, 5_000, 10_000), True, "official", "its files have the published checksums"),
        (
            (45_000, 5_000, 10_000),
            None,
            "counted",
            "counts as published; the contents were held to no checksum",
        ),
        ((45_000, 5_000, 10_000), False, "altered", "counts as published, but files with other checksums"),
        ((20_000, 5_000, 10_000), None, "partial", "25,000 of 50,000 samples in train+val"),
        (
            (20_000, 5_000, 1),
            False,
            "partial",
            "25,000 of 50,000 samples in train+val, 1 of 10,000 samples in test",
        ),
        (
            (1, 1, 10_001),
            True,
            "altered",
            "2 of 50,000 samples in train+val, 10,001 of 10,000 samples in test",
        ),
    ],
)
def test_kinds(held: tuple[int, int, int], checksums: bool | None, kind: str, detail: str) -> None:
    found = compare_copy(PUBLISHED, dict(zip(("train", "val", "test"), held, strict=True)), checksums)
    assert (found.kind, found.detail) == (kind, detail)
    assert found.whole == (kind in ("official", "counted"))


def test_a_split_that_is_not_there_counts_as_none() -> None:
    counts: Mapping[str, int] = {"train": 50_000}
    assert compare_copy(PUBLISHED, counts, None).detail == "0 of 10,000 samples in test"
    assert compare_copy(PUBLISHED, counts, None, unit="rows").detail == "0 of 10,000 rows in test"


@pytest.mark.parametrize(
    ("kind", "title", "note"),
    [
        ("official", "x.y", ""),
        ("counted", "x.y", ""),
        (
            "partial",
            "x.y (partial copy)",
            "x.y is a partial copy: 1 of 2; compare with no published figures",
        ),
        (
            "altered",
            "x.y (altered copy)",
            "x.y is an altered copy: 1 of 2; compare with no published figures",
        ),
    ],
)
def test_what_a_result_says(kind: str, title: str, note: str) -> None:
    copy = Copy(kind, "1 of 2")  # type: ignore[arg-type]
    assert (copy.titled("x.y"), copy.note("x.y")) == (title, note)
    splits = {"train": Nothing(), "test": Nothing()}
    data = Dataset("x.y", splits, ("a", "b"), "f00", copy=copy)
    assert named_whole(f"{copy.titled('x.y')} fold=2") == (note == "")
    card = data_card(data, "x.y:here")
    assert card["name"] == title.replace("x.y", "x.y:here")
    assert card["copy"] == {"kind": kind, "detail": "1 of 2"}
    assert check_dataset(data).to_dict()["copy"] == f"{kind} copy: 1 of 2"
    plain = data_card(replace(data, copy=None), "x.y")
    assert plain["name"] == "x.y" and "copy" not in plain
