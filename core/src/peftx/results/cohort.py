"""One side of a comparison: the runs of one setting, by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftx.errors import RunError
from peftx.results import facts
from peftx.results.facts import SCORED, RowFacts, RunFacts
from peftx.results.labels import Defaults, differing
from peftx.results.scanning import scan

__all__ = ["FREE", "Cohort", "cohort"]

#: Settings a cohort may not mix: they make it two.
_SECTIONS = ("task", "method", "data", "model", "train")
_SETTING = (*(f"{name}." for name in _SECTIONS), "precision")
#: Those that change a result in its last digits at most: seeds, and rows of a board, that differ in these alone are of
#: one setting.
FREE = frozenset({"train.workers", "train.checkpoint", "train.eval_batch_size"})


class Cohort:
    """Runs of one setting by seed; `config` is the resolved configuration they share, with dotted keys."""

    def __init__(
        self, name: str, folder: Path, members: Mapping[int, tuple[str, RunFacts]], config: Mapping[str, Any]
    ) -> None:
        self.name, self.folder, self.config = name, folder, config
        self.members = dict(sorted(members.items()))
        self.first = next(iter(self.members.values()))[1]

    @property
    def rows(self) -> dict[int, RowFacts]:
        """Each seed's own row: baselines are not compared."""
        return {seed: run.rows[0] for seed, (_, run) in self.members.items()}

    @property
    def hardware(self) -> set[str]:
        """What its seeds ran on: of more than one, times and memory have no common median."""
        return {run.hardware for _, run in self.members.values()}

    def metrics(self) -> list[tuple[str, str]]:
        """Splits and metrics that every seed has, the primary one first."""
        tables = [
            {
                (split, name)
                for split, values in row.metrics.items()
                for name, value in values.items()
                if value is not None
            }
            for row in self.rows.values()
        ]
        order = {"test": 0, "val": 1}
        common = set.intersection(*tables)
        first = {"val": self.first.selects or self.first.primary}
        return sorted(
            common,
            key=lambda one: (order.get(one[0], 2), one[1] != first.get(one[0], self.first.primary), one[1]),
        )

    def values(self, split: str, metric: str) -> dict[int, float]:
        """A metric by seed."""
        found = {seed: row.metrics.get(split, {}).get(metric) for seed, row in self.rows.items()}
        return {seed: value for seed, value in found.items() if value is not None}


def cohort(name: str, folder: Path, notes: list[str], defaults: Defaults) -> Cohort:
    """Read the runs in or below `folder`; what is left out is added to `notes`.

    Left out are runs that are unreadable, failed or unfinished, those of a search where others were tested, and the
    older of two with the same seed.

    Raises:
        RunError: no such folder, no finished run in it, or runs of different settings.
    """
    if not folder.is_dir():
        raise RunError(f"no run folder at {folder}")
    found = scan(folder)
    runs: list[tuple[str, RunFacts]] = []
    for one in found.runs:
        where = folder if one == "." else folder / one
        try:
            run = facts.read(where)
        except RunError as error:
            notes.append(f"left out: {error}")
            continue
        if run.rows[0].state == SCORED:
            runs.append((str(where), run))
        else:
            notes.append(f"left out: {where} is {'unfinished' if run.status != 'failed' else 'failed'}")
    tested = [one for one in runs if one[1].tested]
    if tested and len(tested) < len(runs):
        notes.append(
            f"left out: {len(runs) - len(tested)} of {name} not scored at the end (test = false), as in a search"
        )
        runs = tested
    if not runs:
        raise RunError(f"{folder} holds no finished run to compare")
    configs = [_flat(run.config, defaults) for _, run in runs]
    _one_setting(folder, configs)
    members: dict[int, tuple[str, RunFacts]] = {}
    for path, run in sorted(runs, key=lambda pair: (pair[1].started, pair[0])):
        if run.seed in members:
            notes.append(
                f"left out: {members[run.seed][0]}, because {path} is a newer run of seed {run.seed}"
            )
        members[run.seed] = (path, run)
    return Cohort(name, folder, members, configs[0])


def _one_setting(folder: Path, configs: Sequence[Mapping[str, Any]]) -> None:
    keys = [key for key in differing(configs) if key.startswith(_SETTING) and key not in FREE]
    if keys:
        listed = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
        raise RunError(
            f"{folder} holds runs of different settings ({listed}): name a folder with the seeds of one setting alone"
        )


def _flat(config: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Dotted keys with the defaults of what is left out; a table inside a section (``rank_pattern``) is one value, and
    an empty one is none."""
    found: dict[str, Any] = {}
    task = str(config.get("task", {}).get("name", ""))
    for key, value in config.items():
        if isinstance(value, Mapping):
            filled = (
                defaults.filled(key, str(value.get("name", "")), value, task) if key in _SECTIONS else value
            )
            found |= {f"{key}.{name}": inner for name, inner in filled.items() if inner not in ({}, None)}
        else:
            found[key] = value
    return found
