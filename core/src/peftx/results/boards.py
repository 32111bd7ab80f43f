"""From runs to leaderboards: which rows a board has, and what each amounts to.

A board is one task, data set and model (`peftx.results.grouping`) under one metric. A row is one method with one set of
options and training settings; its seeds are its sample. A run's baselines are rows of their own methods. Two scores of
the same row and seed are one: the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.report.board import Board, Standing
from peftx.report.order import front, lower_is_better, ranks
from peftx.results.cohort import FREE
from peftx.results.facts import FAILED, OPEN, canonical
from peftx.results.grouping import Group, group, names
from peftx.results.index import Entry, Index
from peftx.results.labels import Defaults, differing, flat, named
from peftx.results.statistics import mean, median, sd

if TYPE_CHECKING:
    from peftx.config.suite import Suite
    from peftx.plugins.registry import Registry

__all__ = ["COSTS", "boards"]

#: What a row costs, as ``--pareto`` calls it, and the field of a standing that holds it.
COSTS = {
    "trainable": "trainable",
    "stored": "stored_bytes",
    "resident": "resident_bytes",
    "memory": "peak_memory_bytes",
    "saved": "saved_bytes",
    "seconds": "seconds",
}


def boards(
    index: Index,
    domain: str | None = None,
    suites: Iterable[Suite] = (),
    *,
    registry: Registry | None = None,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    pareto: str = "trainable",
    folders: Sequence[Path | str] = (),
) -> list[Board]:
    """Rank the methods on every data set and model there are runs of, each by its mean over seeds.

    Scores are those of the test split. Where the data have none they are of the validation split, and the board says
    so. Runs that were not to be tested (``test = false``, as in a search) are left out.

    Args:
        index: the runs.
        domain: only tasks of this domain.
        suites: whose published rows to add, marked and unranked.
        registry: knows the options' defaults, for labels that do not depend on which runs there are.
        metric: rank by this metric instead of each task's primary one; boards without it are left out.
        higher_is_better: direction of `metric` (default: what its name says, `report.order.lower_is_better`).
        pareto: which cost the front is drawn against, a key of `COSTS`.
        folders: only runs in or below these.

    Raises:
        RunError: one of `folders` is not below the index's root.
    """
    defaults = Defaults(registry)
    entries = index.entries(folders=folders)
    groups = group((e for e in entries if domain in (None, e.task.partition(".")[0])), defaults)
    published = tuple(suites)
    found = []
    for one in groups:
        board = _board(one, defaults, _Ranking(metric, higher_is_better, COSTS[pareto]))
        if not board.standings:
            continue
        called = names(one, groups, defaults)
        board = replace(board, task=called["task"], data=called["data"], model=called["model"])
        if published and board.primary == one.entries[0].primary:
            from peftx.results.published import with_published

            board = with_published(board, one, published, defaults, registry)
        found.append(board)
    return sorted(found, key=lambda board: (board.task, board.data, board.model, board.primary))


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What rows are ranked by, and the cost of the front."""

    metric: str | None
    higher_is_better: bool | None
    cost: str

    def of(self, entry: Entry, split: str) -> tuple[str, bool]:
        """Metric and direction on the board of an entry, which is about a split."""
        if self.metric is None:
            return entry.decides(split)
        for one in ("test", "val"):
            if self.metric == entry.decides(one)[0]:
                return entry.decides(one)
        if self.higher_is_better is not None:
            return self.metric, self.higher_is_better
        return self.metric, not lower_is_better(self.metric)


def _board(one: Group, defaults: Defaults, ranking: _Ranking) -> Board:
    split = "test" if any(entry.has_test for entry in one.entries) else "val"
    primary, higher = ranking.of(one.entries[0], split)
    kept = [entry for entry in one.entries if entry.tested]
    standings, notes = [], []
    for own in _rows(kept, defaults):
        keys = differing([settings for settings, _ in own])
        for settings, row in own:
            found = _Row(named(row[0].method, settings, keys), settings, row, primary, split)
            notes += found.notes
            if found.scored or found.failed:
                standings.append(found.standing())
    if ranking.metric is not None and not any(standing.n for standing in standings):
        standings = []
    units = {entry.units.get(primary, "") for entry in kept} - {""}
    return Board(
        task=one.task,
        data=one.data,
        model=one.model,
        primary=primary,
        unit=min(units, default=""),
        higher_is_better=higher,
        split=split,
        standings=_ranked(standings, higher, ranking.cost),
        reference=defaults.reference(one.entries[0].task),
        notes=(*_notes(one, kept, standings, split), *notes),
    )


def _rows(entries: Iterable[Entry], defaults: Defaults) -> list[list[tuple[dict[str, Any], list[Entry]]]]:
    """For each method its rows: settings, and the entries that have them."""
    found: dict[str, dict[str, tuple[dict[str, Any], list[Entry]]]] = defaultdict(dict)
    for entry in entries:
        sections = {
            "option": defaults.filled("method", entry.method, entry.settings.get("option", {})),
            "train": defaults.filled("train", "", entry.settings.get("train", {})),
            "run": entry.settings.get("run", {}),
        }
        settings = {key: value for key, value in flat(sections).items() if key not in FREE}
        found[entry.method].setdefault(canonical(settings), (settings, []))[1].append(entry)
    return [list(rows.values()) for rows in found.values()]


class _Row:
    """A row's entries, one for each seed: the newest that is scored, else the newest that failed."""

    def __init__(
        self, label: str, settings: Mapping[str, Any], entries: Sequence[Entry], primary: str, split: str
    ) -> None:
        self.label, self.settings, self.primary, self.split = label, settings, primary, split
        self.scored: dict[int, Entry] = {}
        self.failed: dict[int, Entry] = {}
        open_, lacking = set(), set()
        newest = sorted(entries, key=lambda entry: (entry.started, entry.folder), reverse=True)
        for entry in newest:
            if self.value(entry) is not None:
                self.scored.setdefault(entry.seed, entry)
        for entry in newest:
            if entry.seed in self.scored:
                continue
            if entry.state == OPEN:
                open_.add(entry.seed)
            elif entry.state == FAILED or primary in entry.metrics.get(split, {}):
                self.failed.setdefault(entry.seed, entry)
            else:
                lacking.add(entry.seed)
        self.notes = []
        if open_ - self.failed.keys():
            self.notes.append(f"{label}: {_are(len(open_ - self.failed.keys()), 'run')} not finished")
        if lacking:
            self.notes.append(f"{label}: {_are(len(lacking), 'run')} without a {split} {primary}")
        # times and bytes of different hardware have no common median
        self._alike = len({(e.hardware, e.peak_memory_how) for e in self.scored.values()}) < 2
        if not self._alike:
            self.notes.append(
                f"{label}: its seeds ran on different hardware, so it has no time and no memory"
            )

    def value(self, entry: Entry) -> float | None:
        """The metric the board is about."""
        return entry.metrics.get(self.split, {}).get(self.primary)

    def standing(self) -> Standing:
        """The row over its seeds, not yet ranked."""
        seeds = sorted(self.scored)
        own = [self.scored[seed] for seed in seeds]
        values = tuple(value for entry in own if (value := self.value(entry)) is not None)
        rate = self.settings.get("train.lr")
        failed = next(iter(self.failed.values()), None)
        return Standing(
            method=(own[0] if own else next(iter(self.failed.values()))).method,
            label=self.label,
            seeds=tuple(seeds),
            values=values,
            mean=mean(values) if values else None,
            sd=sd(values),
            trainable=_middle(entry.trainable for entry in own),
            stored_bytes=_middle(entry.stored_bytes for entry in own),
            resident_bytes=_middle(entry.resident_bytes for entry in own),
            peak_memory_bytes=_middle(entry.peak_memory_bytes for entry in own) if self._alike else None,
            saved_bytes=_middle(entry.saved_bytes for entry in own),
            seconds=median([entry.seconds for entry in own]) if self._alike else None,
            lr=(float(rate),) if isinstance(rate, int | float) else (),
            failed=len(self.failed),
            cause="" if failed is None else failed.error or f"its {self.primary} is not finite",
            folders=tuple(entry.folder for entry in own),
            metrics=self._means(own),
            last_epoch=self._look(own, "last_epoch"),
            best_on_test=self._look(own, "best_on_test"),
            settings=dict(self.settings),
        )

    def _look(self, entries: Sequence[Entry], name: str) -> float | None:
        """Mean of a test score beside the ranked one, where every seed has it."""
        values = [entry.looks.get(name, {}).get(self.primary) for entry in entries if self.split == "test"]
        known = [value for value in values if value is not None]
        return mean(known) if known and len(known) == len(entries) else None

    def _means(self, entries: Sequence[Entry]) -> dict[str, float]:
        """Means of the metrics that every seed has."""
        scores = [entry.metrics.get(self.split, {}) for entry in entries]
        found = {}
        for name in dict.fromkeys(name for one in scores for name in one):
            values = [value for one in scores if (value := one.get(name)) is not None]
            if len(values) == len(scores):
                found[name] = mean(values)
        return found


def _ranked(standings: Sequence[Standing], higher: bool, cost: str) -> tuple[Standing, ...]:
    """Ranks and front; best first, then by size, rows without a score last."""
    means = [standing.mean for standing in standings]
    places = ranks(means, higher_is_better=higher)
    marks = front(means, [getattr(standing, cost) for standing in standings], higher_is_better=higher)
    done = [
        replace(standing, rank=place, pareto=mark)
        for standing, place, mark in zip(standings, places, marks, strict=True)
    ]
    return tuple(sorted(done, key=lambda one: (one.rank or len(done) + 1, one.trainable or 0, one.label)))


def _notes(one: Group, kept: Sequence[Entry], standings: Sequence[Standing], split: str) -> list[str]:
    found = []
    if split == "val":
        found.append("the data have no test split: the val score, which also chose the epoch, may flatter")
    left_out = {entry.folder for entry in one.entries} - {entry.folder for entry in kept}
    if left_out:
        found.append(
            f"{_are(len(left_out), 'run')} left out: not scored at the end (test = false), as in a search"
        )
    scored = [standing for standing in standings if standing.n]
    if scored and all(standing.n == 1 for standing in scored):
        found.append("one seed is no spread: differences may be chance")
    if len({standing.seeds for standing in scored}) > 1:
        found.append(
            "not all rows have the same seeds: `peftx compare` pairs those that two rows have in common"
        )
    hardware = sorted({entry.hardware for entry in kept if entry.seconds is not None} - {""})
    if len(hardware) > 1:
        found.append(f"time and memory were measured on different hardware: {'; '.join(hardware)}")
    return found


def _middle(values: Iterable[int | None]) -> int | None:
    found = median(list(values))
    return None if found is None else round(found)


def _are(n: int, what: str) -> str:
    return f"{n} {what} is" if n == 1 else f"{n} {what}s are"
