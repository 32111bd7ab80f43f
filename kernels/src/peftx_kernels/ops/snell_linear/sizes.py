"""How the kernels of this op cut a map into pieces.

The numbers come from compiled code (registers, spills) and from counting instructions; none was measured on a GPU. Sums
are formed in the order of the pieces, so no size may depend on the GPU at hand: results would.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import triton

__all__ = ["CONTRACT", "FORM", "JOIN", "SUMS", "Tile", "blocks", "column_splits", "programs"]


class Tile(NamedTuple):
    """How much of a map one program holds at once, in how many warps."""

    rows: int
    columns: int
    warps: int


#: A thread has every 32nd or 128th column (by warps) and all rows of a tile: a coordinate that it has read serves as
#: many entries as fit its registers. FORM: counting and writing; sixteen kilobytes of a float32 map, which is also
#: twice its histogram.
FORM = Tile(16, 256, 4)
#: sums down the columns
SUMS = Tile(16, 128, 4)
#: the contraction; one warp, so that the sums along a row stay inside it
CONTRACT = Tile(4, 128, 1)
#: what the kernels that join partial sums take at once
JOIN = 256

#: warps in flight on 132 multiprocessors, at 128 registers a thread
_WARPS = 16 * 132
#: parts of a sum down a column; more of them cost more to join than they save
_SPLITS = 32


def programs(out: int, width: int) -> int:
    """Programs that count or write a map; each takes every so many-th tile."""
    return int(min(triton.cdiv(out, FORM.rows) * triton.cdiv(width, FORM.columns), _WARPS // FORM.warps))


def column_splits(out: int, width: int) -> tuple[int, int, int]:
    """(column blocks, parts their rows are split into, rows of a part)."""
    across, down = triton.cdiv(width, SUMS.columns), triton.cdiv(out, SUMS.rows)
    splits = min(max(_WARPS // (SUMS.warps * across), 1), _SPLITS, down)
    each = triton.cdiv(down, splits) * SUMS.rows
    return across, triton.cdiv(out, each), each


def blocks(out: int, width: int, groups: int, size: int) -> tuple[int, int, int, int]:
    """(blocks down, across, tiles that a block has down, across) of a contraction.

    As many blocks as there are warps in flight, as long as their partial sums take no more than half a float32 map (or
    four megabytes, where the map is small): ViT-B's (3072, 768) at d = 4 has 154 x 6 of them and 4.4 MB.
    """
    return _blocks(out, width, groups, size, CONTRACT, _WARPS)


@functools.lru_cache
def _blocks(
    out: int, width: int, groups: int, size: int, tile: Tile, warps: int
) -> tuple[int, int, int, int]:
    down, across = triton.cdiv(out, tile.rows), triton.cdiv(width, tile.columns)
    each_down = each_across = 1
    while True:
        count_down, count_across = triton.cdiv(down, each_down), triton.cdiv(across, each_across)
        to_a, to_b = count_down * width, count_across * out
        few = count_down * count_across <= warps
        if few and 4 * groups * size * (to_a + to_b) <= max(2 * out * width, 4 << 20):
            break
        if count_down * count_across == 1:
            break
        if (to_a >= to_b and count_down > 1) or count_across == 1:
            each_down += 1
        else:
            each_across += 1
    return count_down, count_across, each_down, each_across
