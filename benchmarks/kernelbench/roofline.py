"""The cost model as a table: what each operation must compute and move at the timed shapes, and how long that takes."""

from __future__ import annotations

import torch

from kernelbench.cards import Card
from kernelbench.cases import OPS, cases
from kernelbench.costs import Cost, switch

__all__ = ["roofline_table"]


def roofline_table(card: Card) -> str:
    """Return Markdown, for bf16."""
    lines = [
        f"Roofline of {card.name}: {card.bandwidth / 1e12:g} TB/s, {card.half / 1e12:g} TFLOP/s in bf16 "
        f"({card.source}).",
        "",
        "| op | shape | forward: GFLOP, MB | µs | backward: GFLOP, MB | µs |",
        "|---|---|---|---|---|---|",
    ]
    for op in OPS:
        for case in cases(op, torch.device("cuda")):
            both = [part for cost in case.costs(2) for part in _cells(cost, card)]
            lines.append(f"| {op} | {case.label} | " + " | ".join(both) + " |")
    for values in (84_934_656, 4096 * 4096):
        cells = _cells(switch(values, 0.01, 2), card)
        shape = f"1 % of {values / 1e6:.3g} M values, on or off"
        lines.append(f"| sparse_switch | {shape} | " + " | ".join(cells) + " | - | - |")
    return "\n".join(lines)


def _cells(cost: Cost, card: Card) -> tuple[str, str]:
    dtype = torch.bfloat16
    seconds, bound = card.seconds(cost.flop, cost.traffic, dtype), card.bound(cost.flop, cost.traffic, dtype)
    return f"{cost.flop / 1e9:.3g}, {cost.traffic / 1e6:.3g}", f"{seconds * 1e6:.3g} ({bound})"
