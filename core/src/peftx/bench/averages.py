"""The averages a suite is known for: made by its pack's function from the scores of all its data sets. Torch-free.

An average is made for each seed by itself, and what is told is the mean and the deviation over seeds: that of seeds
which a row has on every data set. An average of fewer data sets compares with nothing, so there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftx.bench.suites import load_suite
from peftx.config.suite import Suite, label
from peftx.data.copies import named_whole
from peftx.errors import PeftxError
from peftx.plugins.registry import Registry
from peftx.plugins.targets import one_line
from peftx.report.averages import AverageRow, Averages
from peftx.report.board import Board
from peftx.results.statistics import mean, sd

__all__ = ["averages_of"]

#: As many names are listed in a sentence.
SHOWN = 4

Function = Callable[[Mapping[str, float]], Mapping[str, float]]


@dataclass
class _Scores:
    """What the boards say: by model, row, data set and seed; each kept in the order of the bench."""

    found: dict[str, dict[str, dict[str, dict[int, float]]]] = field(default_factory=dict)
    boards: dict[str, list[Board]] = field(default_factory=dict)

    def of(self, model: str, row: str, data: Sequence[str]) -> dict[int, dict[str, float]]:
        """The scores on all of `data` by seed, of seeds that have them all."""
        held = self.found[model][row]
        seeds = [seed for seed in held.get(data[0], ()) if all(seed in held.get(name, ()) for name in data)]
        return {seed: {name: held[name][seed] for name in data} for seed in sorted(seeds)}


def averages_of(
    out: Path, bench: Mapping[str, Any], boards: Sequence[Board], registry: Registry
) -> list[Averages]:
    """The averages of a bench, for each model; empty for a suite without any, or whose pack is not installed.

    `bench`: bench.json, which says what data set and row a run belongs to, and whether published rows were asked for.
    """
    entry = registry.suites.get(str(bench.get("suite")))
    if entry is None or not entry.spec.averages:
        return []
    try:
        suite, function = load_suite(entry), entry.load("averages")
    except PeftxError:  # the pack is of another version: the runs are what counts
        return []
    scores = _read(out, bench, boards)
    published = suite.published_averages if bench.get("published") else ()
    return [_on(model, scores, suite, function, published) for model in scores.found]


def _read(out: Path, bench: Mapping[str, Any], boards: Iterable[Board]) -> _Scores:
    cells = {str(out / cell["folder"]): cell for cell in bench["cells"] if not cell.get("search")}
    scores = _Scores()
    for board in boards:
        for standing in board.standings:
            for folder, seed, value in zip(standing.folders, standing.seeds, standing.values, strict=False):
                cell = cells.get(folder)
                if cell is not None:
                    rows = scores.found.setdefault(cell["model"], {})
                    rows.setdefault(cell["label"], {}).setdefault(cell["data"], {})[seed] = value
                    held = scores.boards.setdefault(cell["model"], [])
                    held += [board] if board not in held else []
    return scores


def _on(model: str, scores: _Scores, suite: Suite, function: Function, published: Sequence[Any]) -> Averages:
    """The averages on one model."""
    data = [label(one) for one in suite.data]
    boards = scores.boards[model]
    rows, notes = [], []
    lacking = [name for name in data if not any(held.get(name) for held in scores.found[model].values())]
    if lacking:
        notes.append(
            f"no averages with {model}: they take all {len(data)} data sets of the suite, and there is no score on "
            f"{_listed(lacking)}"
        )
    else:
        for name in scores.found[model]:
            row, why = _row(name, scores.of(model, name, data), scores.found[model][name], data, function)
            rows += [row] if row is not None else []
            notes += [why] if why else []
    higher = Counter(board.higher_is_better for board in boards).most_common(1)[0][0]
    metrics = {(f"{board.split} {board.primary}", board.unit) for board in boards}
    metric, unit = next(iter(metrics)) if len(metrics) == 1 else ("score", "")
    names = list(dict.fromkeys(name for row in rows for name in row.mean))
    incomplete = list(dict.fromkeys(board.data for board in boards if not named_whole(board.data)))
    if names and incomplete and published:
        notes.append(f"no published averages beside these: some are of {_listed(incomplete)}")
        published = ()
    if names:
        rows.sort(key=lambda row: row.mean.get(names[0], 0.0), reverse=higher)
        rows += [_printed(one) for one in published]
    return Averages(model, len(data), metric, unit, tuple(names), tuple(rows), tuple(notes))


def _row(
    name: str,
    by_seed: Mapping[int, Mapping[str, float]],
    held: Mapping[str, Mapping[int, float]],
    data: Sequence[str],
    function: Function,
) -> tuple[AverageRow | None, str]:
    """A row's averages, and what a reader must know of them."""
    if not by_seed:
        lacking = [one for one in data if not held.get(one)]
        where = (
            f"it has no score on {_listed(lacking)}" if lacking else "no seed has a score on all data sets"
        )
        return None, f"{name} has no averages: {where}"
    try:
        found = [dict(function(scores)) for scores in by_seed.values()]
    except Exception as error:  # a mistake in a pack's function must not cost a bench its end
        cause = str(error) if isinstance(error, PeftxError) else one_line(error)
        return None, f"{name} has no averages: {cause}"
    values = {key: tuple(one[key] for one in found) for key in found[0]}
    row = AverageRow(
        name,
        tuple(by_seed),
        values,
        {key: mean(own) for key, own in values.items()},
        {key: sd(own) for key, own in values.items()},
    )
    left = sorted({seed for one in held.values() for seed in one} - set(by_seed))
    why = f"{name}: averages without {_seeds(left)}, which not all data sets have" if left else ""
    return row, why


def _printed(row: Any) -> AverageRow:
    shown = f"{row.method} ({row.model})" if row.model else row.method
    return AverageRow(shown, mean=dict(row.values), published=row.source)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
