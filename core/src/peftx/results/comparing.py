"""Two or more runs, or groups of seeds, side by side: what differs in their settings, their scores and their costs.

A group is one setting and its seeds. Scores are compared seed by seed: the same seed means the same head at the start
and the same batches, so the difference of a pair is steadier than the difference of the means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.errors import RunError
from peftx.results.cohort import Cohort, cohort
from peftx.results.labels import Defaults, differing, show
from peftx.results.statistics import Interval, bootstrap_interval, mean, median, sd, t_interval

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

__all__ = ["Comparison", "Cost", "GroupCard", "Score", "Setting", "compare"]

#: Settings that name the run and say nothing about it.
_NAMES = ("seed", "out")

_COSTS = (
    "trainable",
    "stored_bytes",
    "resident_bytes",
    "peak_memory_bytes",
    "saved_bytes",
    "seconds",
    "steps",
)
_OF_HARDWARE = ("peak_memory_bytes", "seconds")


@dataclass(frozen=True, slots=True)
class GroupCard:
    """One argument of a comparison: `name` is how it is called in the tables."""

    name: str
    folder: str
    method: str
    data: str
    model: str
    primary: str
    seeds: tuple[int, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the resolved configuration and its value in each group; None where it is not set."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one group. `mean`, `sd` and `n` are over the group's own seeds; `differences` (this group minus the
    first) are over the `seeds` both have, `difference` is their mean and the intervals (95 %) are of that mean."""

    split: str
    metric: str
    unit: str
    group: str
    mean: float
    sd: float | None
    n: int
    seeds: tuple[int, ...] = ()
    differences: tuple[float, ...] = ()
    difference: float | None = None
    bootstrap: Interval | None = None
    student: Interval | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost and its median in each group; `ratios` are to the first group. None where it was not
    measured, or the seeds of a group ran on different hardware."""

    name: str
    values: tuple[float | None, ...]
    ratios: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`warnings`: why the scores may not be comparable at all; `notes`: what else a reader must know."""

    groups: tuple[GroupCard, ...]
    settings: tuple[Setting, ...]
    scores: tuple[Score, ...]
    costs: tuple[Cost, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def compare(folders: Sequence[Path | str], registry: Registry | None = None) -> Comparison:
    """Compare runs; the first is what the others are compared with.

    Args:
        folders: for each group a run, or a folder that holds the runs of several seeds.
        registry: knows the defaults of options that a run from an earlier version does not name.

    Raises:
        RunError: fewer than two folders, one without a finished run or with runs of different settings, or no metric
            that two of them have.
    """
    if len(folders) < 2:
        raise RunError("a comparison needs at least two runs")
    notes: list[str] = []
    defaults = Defaults(registry)
    names = _short([os.fspath(folder) for folder in folders])
    groups = [
        cohort(name, Path(folder), notes, defaults) for name, folder in zip(names, folders, strict=True)
    ]
    scores = _scores(groups, notes)
    if not any(score.group != groups[0].name for score in scores):
        raise RunError(
            f"nothing to compare: {groups[0].name} has {_words(groups[0].metrics())}, and "
            + "; ".join(f"{group.name} has {_words(group.metrics())}" for group in groups[1:])
        )
    configs = [group.config for group in groups]
    keys = [key for key in differing(configs) if key not in _NAMES]
    return Comparison(
        groups=tuple(_card(group) for group in groups),
        settings=tuple(Setting(key, tuple(config.get(key) for config in configs)) for key in keys),
        scores=tuple(scores),
        costs=tuple(_costs(groups)),
        warnings=tuple(_warnings(groups)),
        notes=tuple(notes),
    )


def _card(group: Cohort) -> GroupCard:
    run = group.first
    return GroupCard(
        name=group.name,
        folder=str(group.folder),
        method=run.method,
        data=run.data,
        model=run.model,
        primary=run.primary,
        seeds=tuple(group.members),
        folders=tuple(folder for folder, _ in group.members.values()),
    )


def _scores(groups: Sequence[Cohort], notes: list[str]) -> list[Score]:
    base = groups[0]
    shared = [one for one in base.metrics() if any(one in other.metrics() for other in groups[1:])]
    scores = []
    for split, metric in shared:
        reference = base.values(split, metric)
        for group in groups:
            own = group.values(split, metric)
            if len(own) != len(group.members):
                continue
            values = list(own.values())
            unit = group.first.units.get(metric, "")
            score = Score(split, metric, unit, group.name, mean(values), sd(values), len(values))
            scores.append(score if group is base else _paired(score, own, reference))
    for group in groups[1:]:
        notes += _about_seeds(base, group)
    return scores


def _paired(score: Score, own: Mapping[int, float], reference: Mapping[int, float]) -> Score:
    seeds = tuple(seed for seed in own if seed in reference)
    differences = tuple(own[seed] - reference[seed] for seed in seeds)
    return replace(
        score,
        seeds=seeds,
        differences=differences,
        difference=mean(differences) if differences else None,
        bootstrap=bootstrap_interval(differences),
        student=t_interval(differences),
    )


def _about_seeds(base: Cohort, group: Cohort) -> list[str]:
    common = [seed for seed in group.members if seed in base.members]
    found = []
    for one, other in ((base, group), (group, base)):
        alone = [seed for seed in one.members if seed not in other.members]
        if alone:
            found.append(
                f"{_seeds(alone)} of {one.name} {'has' if len(alone) == 1 else 'have'} no partner in {other.name}"
            )
    if not common:
        found.append(
            f"{base.name} and {group.name} share no seed: their means stand side by side, without a difference"
        )
    elif len(common) == 1:
        found.append(
            f"{base.name} and {group.name} share one seed: no interval, because one difference has no spread; run more "
            "seeds"
        )
    elif len(common) < 10:
        found.append(
            f"{group.name} - {base.name}: {len(common)} seeds; of so few the bootstrap interval is too narrow, and "
            "Student's is right if the differences are normal"
        )
    return found


def _warnings(groups: Sequence[Cohort]) -> list[str]:
    base = groups[0]
    found = []
    for group in groups[1:]:
        pair = f"{base.name} and {group.name}"
        for what in ("task", "data", "model", "primary"):
            one, other = getattr(base.first, what), getattr(group.first, what)
            if one != other:
                found.append(
                    f"{pair} differ in their {what if what != 'primary' else 'primary metric'}: {one}, {other}"
                )
        if base.first.weights != group.first.weights:
            found.append(f"{pair} began with different weights")
        common = [seed for seed in group.members if seed in base.members]
        pairs = [(base.members[seed][1], group.members[seed][1]) for seed in common] or [
            (base.first, group.first)
        ]
        if base.first.data == group.first.data and any(a.fingerprint != b.fingerprint for a, b in pairs):
            found.append(f"{pair} were trained and scored on different data: the fingerprints differ")
        for split in ("test", "val"):
            counts = {tuple(sorted(set(side.values(split, "n").values()))) for side in (base, group)}
            if len(counts) > 1 and () not in counts:
                found.append(f"{pair} were scored on different numbers of {split} samples")
        hardware = sorted(base.hardware | group.hardware)
        if len(hardware) > 1:
            found.append(
                f"{pair} ran on different hardware ({'; '.join(hardware)}): time and memory do not compare"
            )
    return found


def _costs(groups: Sequence[Cohort]) -> list[Cost]:
    found = []
    for name in _COSTS:
        values = [
            None
            if name in _OF_HARDWARE and len(group.hardware) > 1
            else median([getattr(row, name) for row in group.rows.values()])
            for group in groups
        ]
        if any(value is not None for value in values):
            first = values[0]
            ratios = [value / first if value is not None and first else None for value in values]
            found.append(Cost(name, tuple(values), tuple(ratios)))
    return found


def _short(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart; the whole of equal ones, with a number."""
    parts = [Path(os.path.normpath(path)).parts for path in paths]
    length = 1
    while len({part[-length:] for part in parts}) < len({*parts}):
        length += 1
    names = ["/".join(part[-length:]) for part in parts]
    return [
        name if names.count(name) == 1 else f"{name} #{1 + names[:index].count(name)}"
        for index, name in enumerate(names)
    ]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(show, seeds))}"


def _words(metrics: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{split} {name}" for split, name in metrics) or "no score"
