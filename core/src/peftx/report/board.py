"""A board: one data set and model, and how every method stands on it, over its seeds. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Board", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One method with one set of options, over the seeds it was run with.

    `values` are the primary metric by seed, in the order of `seeds`; `mean` and `sd` (sample deviation, None for one
    seed) are theirs. Costs are medians over the seeds, None where nothing was measured. `rank` counts from 1, equal
    means share one; None for a published row. `pareto`: no other row is at least as good and at least as small, and
    better or smaller. `failed`: runs of this row that ended with an error, `cause` the first one's.
    """

    method: str
    label: str
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    mean: float | None = None
    sd: float | None = None
    rank: int | None = None
    pareto: bool = False
    trainable: int | None = None
    stored_bytes: int | None = None
    peak_memory_bytes: int | None = None
    saved_bytes: int | None = None
    seconds: float | None = None
    lr: tuple[float, ...] = ()
    failed: int = 0
    cause: str = ""
    published: str = ""
    folders: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Board:
    """The standings on one data set with one model. `split`: the one `values` were scored on; val only where there is
    no test split, because it also chose the epoch."""

    task: str
    data: str
    model: str
    primary: str
    unit: str
    higher_is_better: bool
    split: str
    standings: tuple[Standing, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)
