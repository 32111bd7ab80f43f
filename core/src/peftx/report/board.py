"""A board: one data set and model, and how every method stands on it, over its seeds; and the mean ranks of methods
over several boards. Data only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from peftx.report.order import ranks
from peftx.report.table import Column, Table, byte_size, count, percent, seconds

__all__ = ["Board", "MeanRank", "Standing", "mean_ranks", "rank_table", "score_text"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One method with one set of options, over the seeds it was run with.

    `values` are the primary metric by seed, in the order of `seeds`; `mean` and `sd` (sample deviation, None for one
    seed) are theirs. Costs are medians over the seeds, None where nothing was measured. `rank` counts from 1, equal
    means share one; None for a published row. `pareto`: no other row is at least as good and at least as small, and
    better or smaller. `failed`: runs of this row that ended with an error, `cause` the first one's. `metrics`: means of
    every metric of the split. `last_epoch`, `best_on_test`: means of the primary metric on test of the last epoch, and
    of the best by that very metric, where every seed has them; nothing is ranked by them. `settings`: all that makes
    this row what it is, such as ``option.rank`` and ``train.lr``.
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
    resident_bytes: int | None = None
    peak_memory_bytes: int | None = None
    saved_bytes: int | None = None
    seconds: float | None = None
    lr: tuple[float, ...] = ()
    failed: int = 0
    cause: str = ""
    published: str = ""
    folders: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    last_epoch: float | None = None
    best_on_test: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Board:
    """The standings on one data set with one model. `split`: the one `values` were scored on; val only where there is
    no test split, because it also chose the epoch. `reference`: the method that the others' gaps are to, as the task
    names it; empty for none."""

    task: str
    data: str
    model: str
    primary: str
    unit: str
    higher_is_better: bool
    split: str
    standings: tuple[Standing, ...]
    notes: tuple[str, ...] = ()
    reference: str = ""

    @property
    def title(self) -> str:
        """What is compared on what, in one line."""
        better = "higher" if self.higher_is_better else "lower"
        metric = f"{self.primary}, {self.unit}" if self.unit else self.primary
        return f"{self.task} on {self.data} with {self.model}: {self.split} {metric} ({better} is better)"

    def gap(self, standing: Standing) -> float | None:
        """A row's mean minus the reference's, over the seeds that both have where both have several; None for the
        reference itself, for published rows, and where there is no reference or more than one row of it."""
        own = [s for s in self.standings if s.method == self.reference and s.n and not s.published]
        if len(own) != 1 or standing.method == self.reference or standing.mean is None or standing.published:
            return None
        (other,) = own
        there = dict(zip(other.seeds, other.values, strict=True))
        # a row that is the same for every seed stands for all of them
        same = set(standing.seeds) & there.keys() if other.n > 1 else set()
        if not same:
            return standing.mean - (other.mean or 0.0)
        here = dict(zip(standing.seeds, standing.values, strict=True))
        return math.fsum(here[seed] - there[seed] for seed in same) / len(same)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        found = asdict(self)
        for one, standing in zip(found["standings"], self.standings, strict=True):
            one["gap"] = self.gap(standing)
        return found

    def table(self) -> Table:
        """Rank, score and costs of every row; columns that would be empty are left out."""
        show = score_text(self.unit)
        rows = [self._row(standing) | {"gap": self.gap(standing)} for standing in self.standings]
        columns = [
            Column("rank", "rank"),
            Column("label", "method", left=True),
            Column("mean", f"{self.primary} {self.unit}".strip(), show),
            Column("sd", "sd", show),
            Column("n", "n"),
            Column("gap", f"to {self.reference.rpartition('.')[2]}", _signed(self.unit)),
            Column("last_epoch", "of the last epoch", show),
            Column("best_on_test", "best on test (optimistic)", show),
            Column("trainable", "trainable", count),
            Column("stored_bytes", "stored", byte_size),
            Column("resident_bytes", "resident", byte_size),
            Column("saved_bytes", "saved", byte_size),
            Column("peak_memory_bytes", "peak memory", byte_size),
            Column("seconds", "time", seconds),
            Column("pareto", "front", left=True),
            Column("failed", "failed"),
            Column("published", "published", left=True),
        ]
        always = ("rank", "label", "mean", "sd", "n")
        return Table([c for c in columns if c.key in always or any(r[c.key] is not None for r in rows)], rows)

    @staticmethod
    def _row(standing: Standing) -> dict[str, Any]:
        last = standing.last_epoch
        marks = {
            "last_epoch": None if last == standing.mean else last,
            "n": standing.n if not standing.published else None,
            "pareto": "*" if standing.pareto else None,
            "failed": standing.failed or None,
            "published": standing.published or None,
        }
        # fields as they are
        names = (
            "rank label mean sd best_on_test trainable stored_bytes resident_bytes saved_bytes peak_memory_bytes "
            "seconds"
        )
        return {name: getattr(standing, name) for name in names.split()} | marks


@dataclass(frozen=True, slots=True)
class MeanRank:
    """A method over several boards: its rank on each, among the methods that stand on all of them, and their mean."""

    label: str
    rank: float
    ranks: tuple[int, ...]


def mean_ranks(boards: Sequence[Board]) -> list[MeanRank]:
    """Rank the methods that have a score on every board, and average; best first. Empty for fewer than two boards.

    A method with one row on each board takes part as itself, whatever its settings (a searched learning rate differs
    from board to board). One with several rows on some board takes part once for each of its settings that stand on
    every board: which of them is best is not chosen by the scores they are ranked by.
    """
    if len(boards) < 2:
        return []
    scored = [[s for s in board.standings if s.mean is not None and not s.published] for board in boards]
    several = {
        standing.method
        for rows in scored
        for standing in rows
        if sum(other.method == standing.method for other in rows) > 1
    }
    tables = [{_identity(s, several): s for s in rows} for rows in scored]
    common = [name for name in tables[0] if all(name in table for table in tables[1:])]
    columns = [
        ranks([table[name].mean for name in common], higher_is_better=board.higher_is_better)
        for board, table in zip(boards, tables, strict=True)
    ]
    found = []
    for index, name in enumerate(common):
        own = tuple(rank for column in columns if (rank := column[index]) is not None)
        if len(own) == len(boards):
            found.append(MeanRank(_label(name, tables), math.fsum(own) / len(own), own))
    return sorted(found, key=lambda one: (one.rank, one.label))


def rank_table(found: Sequence[MeanRank], boards: Sequence[Board]) -> Table:
    """Mean ranks as a table, with a column for each board."""
    titles = _titles(boards)
    columns = [Column("label", "method", left=True), Column("rank", "mean rank", percent)]
    columns += [Column(str(index), title) for index, title in enumerate(titles)]
    rows: list[dict[str, Any]] = [
        {"label": one.label, "rank": one.rank} | {str(i): rank for i, rank in enumerate(one.ranks)}
        for one in found
    ]
    return Table(columns, rows)


def score_text(unit: str) -> Callable[[Any], str]:
    """How figures of a metric are written: two decimals of a percentage, four digits of anything else."""
    return percent if unit == "%" else lambda value: f"{float(value):.4g}"


def _signed(unit: str) -> Callable[[Any], str]:
    """How differences of a metric are written: with their sign."""
    return lambda value: f"{float(value):+.2f}" if unit == "%" else f"{float(value):+.4g}"


def _identity(standing: Standing, several: set[str]) -> str:
    if standing.method not in several:
        return standing.method
    return f"{standing.method} {json.dumps(dict(standing.settings), sort_keys=True, default=str)}"


def _label(name: str, tables: Sequence[Mapping[str, Standing]]) -> str:
    """The method alone, or the label that says most: on a board where it has one row it needs no more than its name."""
    method = tables[0][name].method
    return method if name == method else max((table[name].label for table in tables), key=len)


def _titles(boards: Sequence[Board]) -> list[str]:
    """What tells the boards apart, as briefly as it can be said."""
    parts = [(board.task, board.data, board.model, f"{board.split} {board.primary}") for board in boards]
    telling = [index for index in range(4) if len({part[index] for part in parts}) > 1] or [1]
    return [" / ".join(part[index] for index in telling) for part in parts]
