"""What a page is made from: the files of a run, or of a bench, read with forgiveness.

A report is asked for when something went wrong, too: a run that is still going, was killed while it wrote a line, or
failed before its first score has a page that says so. Only a folder without a readable record has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftx.errors import RunError
from peftx.report.averages import Averages
from peftx.report.board import Board
from peftx.report.figures import finite
from peftx.report.order import decides

__all__ = ["BenchSource", "RunSource"]

FORMAT = 1

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunSource:
    """One run: its folder, record.json, the lines of metrics.jsonl by row, details.json by row, config.toml, and
    samples.json by row.

    A row is called by its method. `metrics` has the lines in the order of their steps, of several for one step the
    last; `details[method][split]` is what stands behind a score, empty where the task says nothing, and
    `samples[method][split]` what the task shows of single samples.
    """

    folder: Path
    record: Table
    metrics: Mapping[str, tuple[Table, ...]] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Table]] = field(default_factory=dict)
    config: str = ""
    samples: Mapping[str, Mapping[str, Table]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, *, samples: bool = True) -> RunSource:
        """Read a run's folder; without its `samples` where they are not to be shown.

        Raises:
            RunError: it has no record, or one that is damaged or of a later version.
        """
        return cls(
            folder,
            _record(folder),
            _metrics(folder / "metrics.jsonl"),
            _by_row(folder / "details.json"),
            _text(folder / "config.toml"),
            _by_row(folder / "samples.json") if samples else {},
        )

    @property
    def status(self) -> str:
        """complete, training, failed or interrupted."""
        return str(self.record.get("status", "training"))

    @property
    def rows(self) -> list[Table]:
        """The rows that are done or failed, the run's own first."""
        found = sequence(self.record.get("rows"))
        return [row for row in found if isinstance(row, Mapping) and isinstance(row.get("method"), str)]

    @property
    def names(self) -> list[str]:
        """Every row there is anything of, the run's own method first: done, failed, or with a line of metrics. Its
        place in this list is a row's colour on the page."""
        own = [str(self.record.get("method", ""))]
        done = [str(row.get("method", "")) for row in self.rows]
        return [name for name in dict.fromkeys([*own, *done, *self.metrics]) if name]

    @property
    def primary(self) -> str:
        """The metric that decides on the split rows are compared on."""
        return self.metric(self.split)

    @property
    def higher_is_better(self) -> bool:
        """Of the primary metric."""
        return decides(self.record, self.split)[1]

    def metric(self, split: str) -> str:
        """The metric that decides on a split."""
        return decides(self.record, split)[0]

    @property
    def split(self) -> str:
        """The split rows are compared on: test where any row was scored on it, else val."""
        return "test" if any(self.scores(row, "test") for row in self.rows) else "val"

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as text."""
        found = mapping(self.record.get("data")).get("classes")
        return [str(name) for name in found] if isinstance(found, list) else []

    def unit(self, metric: str) -> str:
        """A metric's unit, empty for a plain number."""
        return str(mapping(self.record.get("units")).get(metric, ""))

    def scores(self, row: Table, split: str) -> Table:
        """A row's metrics on a split."""
        return mapping(mapping(row.get("metrics")).get(split))

    def score(self, row: Table) -> float | None:
        """A row's primary metric on the split rows are compared on."""
        return finite(self.scores(row, self.split).get(self.primary))

    def lines(self, method: str, event: str) -> list[Table]:
        """A row's lines of one kind: step, epoch or evaluated."""
        return [line for line in self.metrics.get(method, ()) if line.get("event") == event]


@dataclass(frozen=True, slots=True)
class BenchSource:
    """One bench: its folder, bench.json, a board for each data set and model, the records of its finished cells by
    folder, and the averages over its data sets, where its suite has any. `bench` is read with forgiveness: suite,
    about, task, command, options, cells, rows (with what their search found), notes and next."""

    folder: Path
    bench: Table
    boards: tuple[Board, ...]
    records: Mapping[str, Table] = field(default_factory=dict)
    averages: tuple[Averages, ...] = ()

    @property
    def cells(self) -> list[Table]:
        """The cells of the grid."""
        found = self.bench.get("cells")
        if isinstance(found, Mapping):
            found = [{"folder": name, **mapping(cell)} for name, cell in found.items()]
        return [cell for cell in found if isinstance(cell, Mapping)] if isinstance(found, list) else []

    @property
    def labels(self) -> list[str]:
        """Every row of every board by its label. The place in this list is a row's colour on the page."""
        return list(
            dict.fromkeys(s.label for board in self.boards for s in board.standings if not s.published)
        )


def mapping(value: Any) -> Table:
    """The value if it is a table, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def _record(folder: Path) -> Table:
    path = folder / "record.json"
    if not folder.is_dir():
        raise RunError(f"no run folder at {folder}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        written = int(found["format"])
    except FileNotFoundError:
        raise RunError(
            f"{folder} has no record.json, so there is nothing to report: name the folder of a run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if written > FORMAT:
        raise RunError(
            f"{path} was written by a later peftx (record format {written}, this one reads {FORMAT})"
        )
    return mapping(found)


def _metrics(path: Path) -> dict[str, tuple[Table, ...]]:
    """Lines by row. A line that is no JSON is one a process was killed in: it is left out."""
    found: dict[str, dict[tuple[Any, ...], Table]] = {}
    for text in _text(path).splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if not isinstance(line, dict) or "row" not in line:
            continue
        step = finite(line.get("step"))
        key = (line.get("event"), line.get("epoch"), line.get("split"), step)
        found.setdefault(str(line["row"]), {})[tuple(map(str, key))] = line

    def order(line: Table) -> float:
        return finite(line.get("step")) or 0.0

    return {row: tuple(sorted(lines.values(), key=order)) for row, lines in found.items()}


def _by_row(path: Path) -> dict[str, dict[str, Table]]:
    try:
        rows = mapping(mapping(json.loads(_text(path) or "{}")).get("rows"))
    except ValueError:
        return {}
    return {
        str(method): {str(split): mapping(details) for split, details in mapping(splits).items()}
        for method, splits in rows.items()
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
