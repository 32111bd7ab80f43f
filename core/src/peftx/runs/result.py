"""What a finished run hands back: its folder, its record, the table and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftx.config.run import RunConfig
from peftx.report.order import decides
from peftx.report.table import Column, Table, byte_size, count, percent, seconds

__all__ = ["Run", "RunResult", "result_table"]


_NO_TEST = "no test split: the val score, which also chose the epoch, may flatter"
_OPTIMISTIC = (
    "best on test is the best epoch's score on the very data that chose it: optimistic, and comparable only with "
    "figures that were chosen so, too"
)


@dataclass(frozen=True, slots=True)
class Run:
    """What listeners to run events are told about the run."""

    config: RunConfig
    folder: Path


@dataclass(frozen=True, slots=True)
class RunResult:
    """`rows`: the method first, then the baselines; `next_commands`: what one would type now."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the record."""
        return list(self.record["rows"])

    @property
    def table(self) -> Table:
        """The result table."""
        return result_table(self.record)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table must know."""
        failed = [f"{row['method']} failed: {row['error']}" for row in self.rows if "error" in row]
        scored = [row["metrics"] for row in self.rows if "metrics" in row]
        untested = [_NO_TEST] if scored and not any("test" in metrics for metrics in scored) else []
        chosen = [_OPTIMISTIC] if any("best_on_test" in row for row in self.rows) else []
        return [*self.record["notes"], *untested, *chosen, *failed]

    @property
    def next_commands(self) -> list[str]:
        """Commands that go on from here."""
        return list(self.record["next"])


def result_table(record: Mapping[str, Any]) -> Table:
    """Method beside baselines: trainable parameters, bytes stored and resident, peak memory, seconds, validation and
    test score; where validation chose another epoch than the last in some row, the last epoch's test score; where it
    was asked for, the best on test."""
    primary = record["primary"]
    chosen = {split: decides(record, split)[0] for split in ("val", "test")}
    units = {split: record["units"].get(metric, "") for split, metric in chosen.items()}
    shown = {split: percent if unit == "%" else "{:.4g}".format for split, unit in units.items()}
    titles = {split: f"{split} {metric} {units[split]}".strip() for split, metric in chosen.items()}
    show = shown["test"]
    rows = [
        row
        | {split: row.get("metrics", {}).get(split, {}).get(metric) for split, metric in chosen.items()}
        | {name: _beside(row, name, primary) for name in ("last_epoch", "best_on_test")}
        | {"gap": gap_to_reference(record, row)}
        for row in record["rows"]
    ]
    columns = [
        Column("method", "method", left=True),
        Column("trainable", "trainable", count),
        Column("stored_bytes", "stored", byte_size),
        Column("resident_bytes", "resident", byte_size),
        Column("peak_memory_bytes", "peak memory", byte_size),
        Column("seconds", "time", seconds),
        Column("val", titles["val"], shown["val"]),
        Column("test", titles["test"], show),
    ]
    if all(row["test"] is None for row in rows):
        columns.pop()
    if any(row["gap"] is not None for row in rows):
        signed = "{:+.2f}" if units["test"] == "%" else "{:+.4g}"
        columns.append(Column("gap", f"to {record['reference'].rpartition('.')[2]}", signed.format))
    if any(row["last_epoch"] is not None and row.get("best_epoch") != row.get("epochs") for row in rows):
        columns.append(Column("last_epoch", "of the last epoch", show))
    if any(row["best_on_test"] is not None for row in rows):
        columns.append(Column("best_on_test", "best on test (optimistic)", show))
    return Table(columns, rows)


def gap_to_reference(record: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """A row's test score minus that of the method that the task tells gaps to; None for that method itself, and where
    one of the two has no test score."""
    name, primary = record.get("reference"), record["primary"]
    if not name or row.get("method") == name:
        return None
    other: Mapping[str, Any] = next((one for one in record["rows"] if one.get("method") == name), {})
    values = [one.get("metrics", {}).get("test", {}).get(primary) for one in (row, other)]
    return None if None in values else float(values[0]) - float(values[1])


def _beside(row: Mapping[str, Any], name: str, primary: str) -> float | None:
    """The primary metric on test of an epoch that was looked at beside the kept one."""
    value = row.get(name, {}).get("metrics", {}).get("test", {}).get(primary)
    return None if value is None else float(value)
