"""Where the corrections of one fused map lie: rows of W, ranks of the stacked A, places in the chained B.

The kernels read this from small tables on the device, so one compiled kernel serves any number of parts. A table is
made once for a layout and stays: later calls copy nothing to the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FIELDS", "Row", "layout_of", "part_table", "piece_table", "rows_of", "scale_table"]

#: integers a part has in a layout: start, stop, low, rank, offset of its B in the chain of all B
FIELDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """Where one part lies: rows start..stop of W, ranks low..high of the stacked A."""

    start: int
    stop: int
    low: int
    high: int
    scale: float  # the part's scale, times 1 / kept fraction under dropout


def rows_of(
    weight: Tensor, parts: Sequence[tuple[int, int, Tensor, Tensor, float]], kept: float
) -> tuple[Row, ...]:
    """Return the places of all parts.

    Raises:
        ValueError: a part does not fit its rows.
    """
    out, width = weight.shape
    rows, low = [], 0
    for start, stop, a, b, scale in parts:
        high = low + a.shape[0]
        if not 0 <= start < stop <= out or a.shape[1:] != (width,) or b.shape != (stop - start, high - low):
            raise ValueError(
                f"rows {start}:{stop} of a weight {tuple(weight.shape)} cannot take a {tuple(a.shape)} and "
                f"b {tuple(b.shape)}; expected a (R, {width}) and b ({stop - start}, R)"
            )
        rows.append(Row(start, stop, low, high, scale / kept))
        low = high
    return tuple(rows)


def layout_of(rows: Sequence[Row]) -> list[int]:
    """Return `FIELDS` integers for every part, in one flat list, as an operator's schema takes them."""
    layout, offset = [], 0
    for row in rows:
        rank = row.high - row.low
        layout += [row.start, row.stop, row.low, rank, offset]
        offset += (row.stop - row.start) * rank
    return layout


@functools.lru_cache(maxsize=4096)
def part_table(layout: tuple[int, ...], device: torch.device) -> Tensor:  # (parts, FIELDS)
    """Return the layout on the device."""
    return torch.tensor(layout, dtype=torch.int32, device=device)


@functools.lru_cache(maxsize=4096)
def scale_table(layout: tuple[int, ...], scales: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the scale of every rank of the stacked A on the device, in fp32."""
    ranks = layout[3::FIELDS]
    every = [scale for scale, rank in zip(scales, ranks, strict=True) for _ in range(rank)]
    return torch.tensor(every, dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=4096)
def piece_table(layout: tuple[int, ...], height: int, device: torch.device) -> Tensor:  # (pieces, 3)
    """Cut every part's rows into pieces of `height`: (part, first row of W, number within the part) each."""
    pieces = [
        (part, first, number)
        for part, at in enumerate(range(0, len(layout), FIELDS))
        for number, first in enumerate(range(layout[at], layout[at + 1], height))
    ]
    return torch.tensor(pieces, dtype=torch.int32, device=device)
