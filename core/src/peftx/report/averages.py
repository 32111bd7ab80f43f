"""Averages over the data sets of a suite, by row: what the figure is that papers put into their last column.
Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from peftx.report.figures import spread
from peftx.report.table import Column, Table

__all__ = ["AverageRow", "Averages"]


@dataclass(frozen=True, slots=True)
class AverageRow:
    """One method's averages. `values`: by name, one for each of `seeds`; `mean` and `sd` (sample deviation, None for
    one seed) are theirs. A row that a paper printed has means alone, and its source in `published`."""

    label: str
    seeds: tuple[int, ...] = ()
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    mean: Mapping[str, float] = field(default_factory=dict)
    sd: Mapping[str, float | None] = field(default_factory=dict)
    published: str = ""

    def text(self, name: str, unit: str) -> str | None:
        """One average as it is shown, with its spread over seeds; None where there is none."""
        return spread(self.mean[name], self.sd.get(name), unit) if name in self.mean else None


@dataclass(frozen=True, slots=True)
class Averages:
    """The averages of all rows on one model. `names`: in the order they are shown, rows are ordered by the first;
    `data`: how many data sets they are over; `notes`: which rows have none, and why."""

    model: str
    data: int
    metric: str
    unit: str
    names: tuple[str, ...]
    rows: tuple[AverageRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is averaged, in one line."""
        metric = f"{self.metric}, {self.unit}" if self.unit else self.metric
        return f"averages over {self.data} data sets with {self.model}: {metric}, mean and sd over seeds"

    def table(self) -> Table:
        """Rows under a column for each average."""
        columns = [Column("label", "method", left=True), Column("n", "n")]
        columns += [Column(f"mean {name}", name) for name in self.names]
        if any(row.published for row in self.rows):
            columns.append(Column("published", "published", left=True))
        return Table(
            columns,
            [
                {"label": row.label, "n": len(row.seeds) or None, "published": row.published or None}
                | {f"mean {name}": row.text(name, self.unit) for name in self.names}
                for row in self.rows
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)
