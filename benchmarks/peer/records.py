"""One measured figure is one JSON line; the tables of the README are rendered from those lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TextIO

__all__ = ["Record", "Recorder", "table"]


@dataclass(frozen=True, slots=True)
class Record:
    """One figure: ``spread`` is (lowest, highest) of the n repeats, ``load`` the machine's load average then."""

    name: str
    variant: str
    metric: str
    value: float
    unit: str
    n: int = 1
    spread: tuple[float, float] | None = None
    load: float = 0.0


class Recorder:
    """Writes every record as it is measured, so that a run that is cut short leaves what it had."""

    def __init__(self, path: Path | None) -> None:
        self.records: list[Record] = []
        self._file: TextIO = sys.stdout if path is None else path.open("w")

    def add(self, name: str, variant: str, metric: str, values: float | Iterable[float], unit: str) -> Record:
        """Record one value, or the median of several."""
        several = [values] if isinstance(values, float | int) else list(values)
        spread = (min(several), max(several)) if len(several) > 1 else None
        load = round(os.getloadavg()[0], 1)
        record = Record(name, variant, metric, float(median(several)), unit, len(several), spread, load)
        self.records.append(record)
        print(json.dumps(asdict(record)), file=self._file, flush=True)
        return record


def table(records: Iterable[Record]) -> str:
    """Return Markdown: a table a benchmark, a row a variant, a column a metric."""
    names: dict[str, list[Record]] = {}
    for record in records:
        names.setdefault(record.name, []).append(record)
    return "\n\n".join(_one_table(name, rows) for name, rows in names.items())


def _one_table(name: str, records: list[Record]) -> str:
    metrics = list(dict.fromkeys((r.metric, r.unit) for r in records))
    variants = list(dict.fromkeys(r.variant for r in records))
    cells = {(r.variant, r.metric): _cell(r) for r in records}
    loads = [r.load for r in records]
    lines = [
        f"**{name}** (load {min(loads):g} to {max(loads):g})",
        "",
        "| variant | "
        + " | ".join(f"{metric}{', ' + unit if unit else ''}" for metric, unit in metrics)
        + " |",
        "|---" * (len(metrics) + 1) + "|",
    ]
    lines += [
        f"| {variant} | " + " | ".join(cells.get((variant, metric), "-") for metric, _ in metrics) + " |"
        for variant in variants
    ]
    return "\n".join(lines)


def _cell(record: Record) -> str:
    if record.value and abs(record.value) < 1e-3:
        return f"{record.value:.1e}"
    digits = 3 if record.unit == "x" or abs(record.value) < 10 else 1
    if record.value == int(record.value) and record.unit in ("calls", "modules", ""):
        digits = 0
    text = f"{record.value:.{digits}f}"
    if record.spread is not None and record.unit == "x":
        text += f" ({record.spread[0]:.{digits}f} to {record.spread[1]:.{digits}f}, n {record.n})"
    return text
