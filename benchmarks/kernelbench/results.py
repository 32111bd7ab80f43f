"""One measured figure is one row; what was asked for is judged from the rows, and printed beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Row", "judged", "table", "to_dict"]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of one variant of one case.

    `best` is the roofline's, in the same unit, where there is one; `over` the median ratio to the composition, repeat
    by repeat, so that what slows both down for a while does not count.
    """

    part: str
    case: str
    variant: str
    metric: str
    value: float | None
    unit: str
    n: int = 1
    low: float | None = None
    high: float | None = None
    best: float | None = None
    bound: str = ""
    flop: float = 0.0
    traffic: float = 0.0
    note: str = ""
    over: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What rows of several variants have in common."""
        return self.part, self.case, self.metric


def to_dict(row: Row) -> dict[str, Any]:
    """A row, JSON-ready, with the rates that follow from it."""
    rates = {}
    if row.value and row.unit == "ms" and row.traffic:
        rates = {"TB/s": row.traffic / row.value / 1e9, "TFLOP/s": row.flop / row.value / 1e9}
    return asdict(row) | rates


def table(rows: Sequence[Row]) -> str:
    """Return Markdown: a table a part; a line a case, type and pass, a column a variant, best first named."""
    parts = dict.fromkeys(row.part for row in rows)
    return "\n\n".join(_part(part, [row for row in rows if row.part == part]) for part in parts)


def _part(part: str, rows: list[Row]) -> str:
    variants = list(dict.fromkeys(row.variant for row in rows))
    cells = {(row.key, row.variant): row for row in rows}
    best = any(row.best is not None for row in rows)
    head = ["case", "figure", *variants] + ["roofline", "ours, of the roofline"] * best
    lines = [f"**{part}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key in dict.fromkeys(row.key for row in rows):
        found = {name: cells[key, name] for name in variants if (key, name) in cells}
        unit = next(row.unit for row in found.values())
        line = [key[1], f"{key[2]}, {unit}" if unit else key[2]]
        line += [_cell(found.get(name)) for name in variants]
        if best:
            line += _roofline(found)
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def _roofline(found: dict[str, Row]) -> list[str]:
    row = found.get("ours")
    if row is None or row.best is None or not row.value:
        return ["-", "-"]
    if row.bound == "memory":
        rate = f"{row.traffic / row.value / 1e6:.3g} GB/s"
    else:
        rate = f"{row.flop / row.value / 1e9:.3g} TFLOP/s"
    return [f"{row.best:.3g} ({row.bound})", f"{100 * row.best / row.value:.0f} %, {rate}"]


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.value is None:
        return row.note or "-"
    return f"{row.value:.4g}" + (f" {row.note}" if row.note else "")


def judged(rows: Iterable[Row], device: str) -> list[str]:
    """What was aimed at, and whether it was reached: a line each."""
    by_key: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        if row.value is not None:
            by_key.setdefault(row.key, {})[row.variant] = row
    lines = []
    for (part, case, metric), found in by_key.items():
        for text, value, limit in _aims(part, case, metric, found, device):
            met = "met" if value <= limit else "MISSED"
            lines.append(f"{met}: {part}, {case}, {metric}: {text} is {value:.3g}, at most {limit:g}")
    return lines


def _aims(
    part: str, case: str, metric: str, found: dict[str, Row], device: str
) -> Iterable[tuple[str, float, float]]:
    ours = found.get("ours")
    if ours is None or ours.value is None:
        return

    def of(name: str) -> float | None:
        return found[name].value if name in found else None

    composition, peft, bare, lora = of("composition"), of("peft"), of("bare product"), of("LoRA")
    if device == "cpu":
        if composition is not None and ours.unit == "ms":
            ratio = ours.value / composition if ours.over is None else ours.over
            yield "ours over the composition", ratio, 1.0
        fused = of("artifacts.fuse")
        if part == "sparse_switch" and fused is not None:
            yield "artifacts.fuse in ms", fused, {"on": 10.0, "off": 8.0, "switch": 13.0}[metric]
    else:
        if ours.bound == "memory" and ours.best:
            yield "ours over the roofline", ours.value / ours.best, 1.5
        training = metric.endswith("training")
        if part == "dora_linear" and "8192, rank 384" in case and training and peft is not None:
            yield "ours over peft", ours.value / peft, 1 / 1.9
        if part == "lora_linear" and bare is not None and composition is not None and composition > bare:
            yield "ours' extra over the composition's", (ours.value - bare) / (composition - bare), 0.5
        if part == "models" and lora is not None:
            limit = 1.01 if metric == "peak memory" else 1.05
            yield "SNELL over LoRA", ours.value / lora, limit
    if metric == "norm workspace":
        yield "megabytes", ours.value, 5.0
