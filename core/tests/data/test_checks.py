"""`peftx data check` finds what differs from the published figures, and nothing when nothing does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from peftx.data import Dataset, Published, Split
from peftx.data.checks import check_dataset
from peftx.errors import DataError


class Numbers(Split[int]):
    def __init__(self, labels: list[int], broken: int | None = None) -> None:
        self._labels, self.broken = labels, broken

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> int:
        if index == self.broken:
            raise DataError(f"sample {index} is broken")
        return index

    @property
    def labels(self) -> list[int]:
        return self._labels


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(
        "x.y",
        {"train": Numbers([0, 1, 0]), "val": Numbers([1]), "test": Numbers([0, 1])},
        ("a", "b"),
        "f00",
        published=Published(
            {"train+val": 4, "test": 2}, ("a", "b"), {"train+val": 2, "test": 1}, "the paper"
        ),
    )


def test_agreement(dataset: Dataset) -> None:
    report = check_dataset(dataset)
    assert report.ok
    assert [check.what for check in report.checks] == [
        "samples in train+val",
        "samples in test",
        "classes",
        "samples per class in train+val",
        "samples per class in test",
        "readable in train",
        "readable in val",
        "readable in test",
    ]
    assert json.loads(json.dumps(report.to_dict()))["source"] == "the paper"


def failures(dataset: Dataset) -> dict[str, tuple[str | None, str]]:
    return {
        check.what: (check.expected, check.found) for check in check_dataset(dataset).checks if not check.ok
    }


def test_a_missing_sample_is_found(dataset: Dataset) -> None:
    short = replace(dataset, splits=dict(dataset.splits) | {"val": Numbers([])})
    assert failures(short) == {
        "samples in train+val": ("4", "3"),
        "samples per class in train+val": ("2", "1 to 2"),
    }


def test_a_wrong_class_list_is_found(dataset: Dataset) -> None:
    assert failures(replace(dataset, classes=("a", "c"))) == {"classes": ("2", "2, 'c' where 'b' belongs")}


def test_an_unreadable_sample_is_found(dataset: Dataset) -> None:
    broken = replace(dataset, splits=dict(dataset.splits) | {"test": Numbers([0, 1], broken=1)})
    assert failures(broken) == {"readable in test": ("2", "sample 1 is broken")}
    assert check_dataset(broken, read_all=False).ok


def test_without_published_figures_counts_are_only_shown(dataset: Dataset) -> None:
    report = check_dataset(replace(dataset, published=None), read_all=False)
    assert report.ok
    assert {check.what: check.found for check in report.checks} == {
        "samples in train": "3",
        "samples in val": "1",
        "samples in test": "2",
        "classes": "2",
    }


class Hours(Numbers):
    """One long sample."""

    extent, unit = 48, "hours"


def test_what_a_split_counts_is_compared(dataset: Dataset) -> None:
    one = replace(
        dataset,
        splits={"train": Hours([0]), "val": Hours([0])},
        classes=(),
        published=Published({"train": 50}),
    )
    checks = check_dataset(one, read_all=False).checks
    assert [(check.what, check.expected, check.found, check.ok) for check in checks] == [
        ("hours in train", "50", "48", False),
        ("hours in val", None, "48", True),
    ]
