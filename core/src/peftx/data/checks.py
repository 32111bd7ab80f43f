"""`peftx data check`: compare what a loader read with what the authors of the data set published."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from peftx.data.contract import Dataset
from peftx.errors import DataError

__all__ = ["Check", "CheckReport", "check_dataset"]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison; `expected` is None when nothing is published and `found` is only shown."""

    what: str
    expected: str | None
    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All comparisons of one data set. `source`: where the published figures stand; `copy`: what the loader says was
    read, if anything."""

    name: str
    checks: tuple[Check, ...]
    source: str
    fingerprint: str
    copy: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing disagreed."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "name": self.name,
            "ok": self.ok,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "copy": self.copy,
            "checks": [asdict(check) for check in self.checks],
        }


def check_dataset(dataset: Dataset, *, read_all: bool = True) -> CheckReport:
    """Compare counts and classes with the published ones and, with `read_all`, read every sample.

    Load the data set with the defaults of its config: a `limit_train` is a difference too.
    """
    checks: list[Check] = []
    published = dataset.published
    counts = {name: split.extent for name, split in dataset.splits.items()}
    unit = dataset.splits["train"].unit
    expected_counts = dict(published.counts) if published else {}
    for key in [*expected_counts, *(name for name in counts if not _covered(name, expected_counts))]:
        found = sum(counts.get(name, 0) for name in key.split("+"))
        expected = expected_counts.get(key)
        checks.append(
            _compare(f"{unit} in {key}", None if expected is None else f"{expected:,}", f"{found:,}")
        )
    if published and published.classes:
        same = tuple(dataset.classes) == tuple(published.classes)
        checks.append(
            Check("classes", _classes(published.classes), _classes(dataset.classes, published.classes), same)
        )
    elif dataset.classes:
        checks.append(_compare("classes", None, f"{len(dataset.classes)}"))
    for key, expected in (published.per_class if published else {}).items():
        checks.append(_per_class(dataset, key, expected))
    if read_all:
        checks.extend(_readable(dataset, name) for name in dataset.splits)
    copy = "" if dataset.copy is None else f"{dataset.copy.kind} copy: {dataset.copy.detail}"
    source = published.source if published else ""
    return CheckReport(dataset.name, tuple(checks), source, dataset.fingerprint, copy)


def _covered(name: str, keys: dict[str, int]) -> bool:
    return any(name in key.split("+") for key in keys)


def _compare(what: str, expected: str | None, found: str) -> Check:
    return Check(what, expected, found, expected is None or expected == found)


def _classes(classes: tuple[str, ...], published: tuple[str, ...] | None = None) -> str:
    """The number of classes and, where two lists differ, the first difference."""
    if published is None or tuple(classes) == tuple(published):
        return f"{len(classes)}"
    pairs = zip(classes, published, strict=False)
    first = next(
        (f"{found!r} where {expected!r} belongs" for found, expected in pairs if found != expected), ""
    )
    return f"{len(classes)}" + (f", {first}" if first else "")


def _per_class(dataset: Dataset, key: str, expected: int) -> Check:
    """Whether every class has `expected` samples in the splits of `key` together."""
    counts: Counter[int] = Counter()
    for name in key.split("+"):
        labels = dataset.splits[name].labels if name in dataset.splits else None
        counts.update(int(label) for label in (labels if labels is not None else ()))
    held = [counts.get(index, 0) for index in range(len(dataset.classes))]
    low, high = (min(held), max(held)) if held else (0, 0)
    found = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return _compare(f"samples per class in {key}", f"{expected:,}", found)


def _readable(dataset: Dataset, name: str) -> Check:
    """Read every sample of a split; the first that cannot be read is the finding."""
    split = dataset.splits[name]
    for index in range(len(split)):
        try:
            split[index]
        except DataError as error:
            return Check(f"readable in {name}", f"{len(split):,}", str(error), False)
    return Check(f"readable in {name}", f"{len(split):,}", f"{len(split):,}", True)
