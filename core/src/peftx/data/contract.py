"""What a data set is: named splits of raw samples, the class list, a fingerprint, and a card about it.

A loader is a function ``load(config, ctx) -> Dataset``, named by `DatasetSpec.target`. Its companion
``locate(config, ctx) -> None`` (`DatasetSpec.locate`) makes sure that the files are there, downloading them
when it may, and raises DataError or NetworkError otherwise; both run before torch is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from peftx.data.copies import Copy
from peftx.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SPLITS", "DataContext", "Dataset", "Published", "Split", "Subset"]

#: The names a split may have; `train` is always there, and `val`, `test` or both beside it. Without `val` there is
#: nothing to choose an epoch by: training keeps the last one.
SPLITS = ("train", "val", "test")

Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class DataContext:
    """Where data may come from.

    `root`: folder with data already there (`--data-root`), never written to. `cache`: the one folder
    downloads and extracted archives go to. `offline`: the network is never touched. `seed`: the run's seed,
    for loaders that draw something per run; splits have a seed of their own in the data set's config.
    """

    root: Path | None
    cache: Path
    offline: bool = False
    seed: int = 0

    @classmethod
    def create(cls, root: Path | None = None, *, offline: bool = False, seed: int = 0) -> DataContext:
        """The context of this process: loaders take it, and need not look at PEFTX_DATA or PEFTX_OFFLINE."""
        from peftx.data.cache import cache_folder
        from peftx.data.fetch import offline_by_environment

        return cls(root, cache_folder(), offline or offline_by_environment(), seed)

    def checked_root(self) -> Path | None:
        """`root`, for a loader that looks there.

        Raises:
            DataError: it is no folder.
        """
        if self.root is not None and not self.root.is_dir():
            raise DataError(f"the data root {self.root} is not a folder")
        return self.root


class Split(ABC, Generic[Sample]):
    """A sequence of raw samples; the same index always gives the same sample.

    A split of images yields ``(image, label)``: a PIL image or a uint8 array (height, width[, 3]), and the
    index of the class; such a split also has `labels`, the indices of all samples without decoding any.
    """

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The sample at `index`; IndexError outside ``0 .. len - 1``, DataError when it cannot be read."""

    @property
    def labels(self) -> Sequence[int] | NDArray[np.int64] | None:
        """Class index of every sample, or None."""
        return None

    def select(self, indices: Sequence[int]) -> Split[Sample]:
        """Return a split of some of the samples, in that order; for a task that needs splits of a class of its own,
        one of that class."""
        return Subset(self, indices)

    def alone(self) -> Split[Sample]:
        """Return the same samples without what the split keeps beside them of other splits, as that of a long series
        does when all splits share its rows; the split itself where there is no such thing."""
        return self

    @property
    def extent(self) -> int:
        """How much there is, in `unit`: what counts are published of and records state. Samples, unless a split says
        otherwise, as one of a few long series does."""
        return len(self)

    @property
    def unit(self) -> str:
        """What `extent` counts, in the plural."""
        return "samples"

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]


class Subset(Split[Sample]):
    """Some samples of another split, in the order given."""

    def __init__(self, whole: Split[Sample], indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = [int(index) for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self.indices):
            raise IndexError(index)
        return self.whole[self.indices[index]]

    @property
    def labels(self) -> Sequence[int] | NDArray[np.int64] | None:
        whole = self.whole.labels
        return None if whole is None else [int(whole[index]) for index in self.indices]


@dataclass(frozen=True, slots=True)
class Published:
    """What the authors of a data set published about it, for `peftx data check`.

    `counts`: the extent of each split (`Split.extent`, samples mostly); ``"train+val"`` is the sum of the two when the
    official train set is split here. `per_class`: samples of each class, same keys, for balanced sets. `source`: where
    the figures stand.
    """

    counts: Mapping[str, int]
    classes: tuple[str, ...] = ()
    per_class: Mapping[str, int] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Splits of raw samples and what is known about them.

    `fingerprint`: hex digest that changes when samples, labels or splits change. `card`: source, licence,
    synthetic, verified, note. `published`: official figures, where there are any. `copy`: how what was read stands to
    what was published, from `peftx.data.copies.compare_copy`; None for data that nobody published, as one's own.
    """

    name: str
    splits: Mapping[str, Split[Any]]
    classes: tuple[str, ...]
    fingerprint: str
    card: Mapping[str, Any] = field(default_factory=dict)
    published: Published | None = None
    copy: Copy | None = None

    def __post_init__(self) -> None:
        strange = sorted(set(self.splits) - set(SPLITS))
        if strange or "train" not in self.splits or len(self.splits) < 2:
            raise ValueError(
                f"splits of {self.name} must be train and val, test or both, got {sorted(self.splits)}"
            )
