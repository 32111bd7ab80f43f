"""Launches of the kernels: tables, block sizes, buffers. What is here sees tensors and numbers, no autograd.

Passes over memory, beside the library's products with W: forward, x is read and y read and written again; backward, dY
is read twice (dV, dB), x once (dA), dX read and written again. Factors are chained into one flat tensor a pass, so that
one launch serves all of them: they are small beside the rows of a training batch, and a table of their addresses would
be wrong as soon as one of them moved.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from peftx_kernels.context import is_tracing
from peftx_kernels.ops.grouped_lora.segments import expand, outer, shrink

__all__ = [
    "FULL",
    "HALF",
    "Blocks",
    "Layout",
    "blocks",
    "grouped_backward",
    "grouped_forward",
    "sizes_of",
    "tables",
]

#: programs that a launch should have at least: two for each multiprocessor of an H200. An estimate, not measured.
_PROGRAMS = 264
#: columns, or rows, that are worth a program of their own in a split sum; an estimate as well
_SHARE = 512
_MOST_SPLITS = 8

Layout = tuple[
    tuple[int, int, int, int, float], ...
]  # group, start, stop, R, scale of each part, sorted by group


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows, ranks and columns of the kernels' tiles; warps, those of expand apart, and stages of the loops."""

    rows: int
    ranks: int
    columns: int
    warps: int
    expand_warps: int
    stages: int


HALF = Blocks(64, 32, 64, 8, 4, 3)
FULL = Blocks(32, 32, 32, 8, 8, 2)  # fp32 products run without tensor cores: registers are what is scarce


def blocks(dtype: torch.dtype) -> Blocks:
    """The tiles for a type, by the cost model and not measured.

    One for all shapes: the thin products are bound by memory, so ranks below 32 and chunks of few rows waste nothing
    that is scarce. More than 32 ranks are several items.
    """
    return FULL if dtype is torch.float32 else HALF


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the launches must know of a layout, as numbers.

    `ranks` and `items` are the most that one group has; `dropped` is the rate in 65536ths; `even_down` and `even_up`
    say what all first and last columns of the items are multiples of: 16 where rows may be read in vectors, else 1.
    """

    ranks: int
    items: int
    dropped: int
    even_down: int
    even_up: int


def sizes_of(layout: Layout, width: int, most: int, dropped: int) -> Sizes:
    """The sizes of a layout whose items have at most `most` ranks."""
    ranks: dict[int, int] = {}
    items: dict[int, int] = {}
    for group, _, _, rank, _ in layout:
        ranks[group] = ranks.get(group, 0) + rank
        items[group] = items.get(group, 0) + -(-rank // most)
    down, up = width % 16, any(start % 16 or stop % 16 for _, start, stop, _, _ in layout)
    return Sizes(max(ranks.values()), max(items.values()), dropped, 1 if down else 16, 1 if up else 16)


@functools.lru_cache(1024)
def _table(
    layout: Layout, groups: int, width: int, most: int, down: bool, device: torch.device
) -> list[Tensor]:
    return _items(layout, groups, width, most, down, device)


def tables(
    layout: Layout, groups: int, width: int, most: int, down: bool, device: torch.device
) -> list[Tensor]:
    """Return (items, first, scales) of all A (`down`, width columns) or of all B; made once for a layout."""
    # a traced tensor must not outlive its graph
    return (_items if is_tracing() else _table)(layout, groups, width, most, down, device)


def _items(
    layout: Layout, groups: int, width: int, most: int, down: bool, device: torch.device
) -> list[Tensor]:
    items: list[int] = []
    scales: list[float] = []
    first = [0] * (groups + 1)
    base = low = 0
    for at, (group, start, stop, rank, scale) in enumerate(layout):
        if at and layout[at - 1][0] != group:
            low = 0
        begin, end = (0, width) if down else (start, stop)
        for done in range(0, rank, most):
            along, across = (width, 1) if down else (1, rank)
            items += [
                group,
                begin,
                end,
                low + done,
                min(most, rank - done),
                base + done * along,
                along,
                across,
            ]
            scales.append(1.0 if down else scale)
            first[group + 1] += 1
        base += rank * (end - begin)
        low += rank
    for group in range(groups):
        first[group + 1] += first[group]
    return [
        torch.tensor(items, dtype=torch.int64, device=device),
        torch.tensor(first, dtype=torch.int32, device=device),
        torch.tensor(scales, dtype=torch.float32, device=device),
    ]


def _splits(programs: int, length: int) -> int:
    return max(1, min(_MOST_SPLITS, _PROGRAMS // max(programs, 1), length // _SHARE))


def grouped_forward(
    x: Tensor,  # (..., in)
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,  # flat
    b: Tensor,  # flat
    seed: Tensor,  # (1,) int64, or empty
    chunks: Sequence[Tensor],  # order, starts, group, first, count
    downs: Sequence[Tensor],  # items, first, scales of A
    ups: Sequence[Tensor],  # those of B
    tile: Sequence[int],  # Blocks
    numbers: Sequence[int],  # Sizes
) -> tuple[Tensor, Tensor]:  # y (..., out), V (rows, ranks)
    """y = x W^T + bias, then V = drop(x) A^T and y += s V B^T in place."""
    out, flat = weight.shape[0], _rows(x)
    y = x.new_empty((*x.shape[:-1], out))
    flat_y = y.view(-1, out)
    if bias is None:
        torch.mm(flat, weight.t(), out=flat_y)
    else:
        torch.addmm(bias, flat, weight.t(), out=flat_y)
    block, sizes = Blocks(*tile), Sizes(*numbers)
    partial = _shrink(flat, a, seed, chunks, downs, sizes, block, True)
    return y, _expand(flat_y, partial, b, seed, chunks, ups, sizes, block, False)


def grouped_backward(
    d_y: Tensor,  # (rows, out)
    x: Tensor,  # (rows, in), or empty
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    v: Tensor,  # (rows, ranks), or empty
    seed: Tensor,
    chunks: Sequence[Tensor],
    downs: Sequence[Tensor],
    ups: Sequence[Tensor],
    tile: Sequence[int],
    numbers: Sequence[int],
    needs: Sequence[bool],  # of x, of any A, of any B
) -> tuple[Tensor, Tensor, Tensor]:  # dX (rows, in), all dA and all dB, flat, in fp32; empty where not needed
    """dX = dY W + drop(dV A), dA = dV^T drop(x), dB = s dY^T V with dV = s dY B."""
    d_y, block, sizes = _rows(d_y), Blocks(*tile), Sizes(*numbers)
    d_x = d_y.new_empty(0)
    d_a, d_b = (d_y.new_empty(0, dtype=torch.float32) for _ in range(2))
    if needs[0] or needs[1]:
        partial = _shrink(d_y, b, seed, chunks, ups, sizes, block, False)
        if needs[0]:
            d_x = d_y @ weight
            d_v = _expand(d_x, partial, a, seed, chunks, downs, sizes, block, True)
        else:
            d_v = partial.sum(0).to(d_y.dtype)
        if needs[1]:
            d_a = _outer(d_v, _rows(x), a.numel(), seed, chunks, downs, sizes, block, True)
    if needs[2]:
        d_b = _outer(v, d_y, b.numel(), seed, chunks, ups, sizes, block, False)
    return d_x, d_a, d_b


def _rows(t: Tensor) -> Tensor:
    flat = t if t.dim() == 2 else t.reshape(-1, t.shape[-1])
    return flat if flat.stride(1) == 1 and flat.stride(0) >= flat.shape[1] else flat.contiguous()


def _options(block: Blocks, sizes: Sizes, down: bool) -> dict[str, Any]:
    return {
        "BLOCK_T": block.rows,
        "BLOCK_R": block.ranks,
        "BLOCK_C": block.columns,
        "MASKED": down and sizes.dropped > 0,
        "EVEN": sizes.even_down if down else sizes.even_up,
        "num_warps": block.warps,
        "num_stages": block.stages,
    }


def _shrink(
    x: Tensor,
    matrix: Tensor,
    seed: Tensor,
    chunks: Sequence[Tensor],
    table: Sequence[Tensor],
    sizes: Sizes,
    block: Blocks,
    down: bool,
) -> Tensor:  # (splits, rows, ranks) fp32
    order, _, group, at, count = chunks
    items, first, scales = table
    splits = _splits(group.shape[0] * sizes.items, x.shape[1])
    v = x.new_empty((splits, x.shape[0], sizes.ranks), dtype=torch.float32)
    places = (order, group, at, count, first, items, scales, matrix, v, v.stride(0), v.stride(1))
    grid = (group.shape[0], sizes.items, splits)
    options = _options(block, sizes, down)
    shrink[grid](x, x.stride(0), *places, seed, sizes.dropped, ALONG_COLUMNS=down, **options)
    return v


def _expand(
    y: Tensor,
    v: Tensor,
    matrix: Tensor,
    seed: Tensor,
    chunks: Sequence[Tensor],
    table: Sequence[Tensor],
    sizes: Sizes,
    block: Blocks,
    down: bool,
) -> Tensor:  # (rows, ranks)
    order, _, group, at, count = chunks
    items, first, scales = table
    kept = y.new_empty(v.shape[1:])
    places = (order, group, at, count, first, items, scales, matrix, v, v.stride(0), v.stride(1))
    grid = (group.shape[0], triton.cdiv(y.shape[1], block.columns))
    options = _options(block, sizes, down)
    expand[grid](y, y.shape[1], *places, v.shape[0], kept, seed, sizes.dropped, ALONG_COLUMNS=down, **options)
    return kept


def _outer(
    v: Tensor,
    g: Tensor,
    size: int,
    seed: Tensor,
    chunks: Sequence[Tensor],
    table: Sequence[Tensor],
    sizes: Sizes,
    block: Blocks,
    down: bool,
) -> Tensor:  # (size,) fp32
    order, starts = chunks[:2]
    items, first, scales = table
    grid = (scales.shape[0], triton.cdiv(g.shape[1], block.columns))
    splits = _splits(grid[0] * grid[1], g.shape[0] // max(first.shape[0] - 1, 1))
    out = g.new_empty((splits, size), dtype=torch.float32)
    rows = (v, v.stride(0), g, g.stride(0), order, starts, items, scales, out, size)
    outer[(*grid, splits)](*rows, seed, sizes.dropped, **_options(block, sizes, down))
    return out[0] if splits == 1 else out.sum(0)
