"""Kernels of the forward pass: what a softmax needs to know of its columns, and the thinned map written once."""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.arithmetic import rounded
from peftx_kernels.ops.snell_linear.maps import (
    kept_factor,
    kernel,
    mixed_values,
    modes,
    plain_values,
    softmax_part,
    tile_at,
    update_values,
)
from peftx_kernels.ops.snell_linear.search import found

__all__ = ["form_kernel", "join_stats_kernel", "stats_kernel"]

# mypy: disable-error-code="no-untyped-def"


@kernel
def stats_kernel(
    parts, a, b, beta, gamma, out, width, size, groups, turned, scale, rows_each,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Largest z = V / gamma, and sum of exp(z - largest), of a block of columns, into parts (splits, 2, width).

    Over `rows_each` rows, a multiple of ROWS.
    """
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    split = tl.program_id(1)
    largest = tl.full((COLUMNS,), float("-inf"), tl.float32)
    total = tl.zeros((COLUMNS,), tl.float32)
    for top in range(split * rows_each, tl.minimum((split + 1) * rows_each, out), ROWS):
        rows = top + tl.arange(0, ROWS)
        v = plain_values(a, b, rows, columns, out, width, size, groups, turned, scale, beta, True)
        z = tl.div_rn(v, tl.zeros_like(v) + tl.load(gamma))
        z = tl.where((rows < out)[:, None], z, float("-inf"))
        most = tl.maximum(largest, tl.max(z, 0))
        total = total * tl.exp(largest - most) + tl.sum(tl.exp(z - most[None, :]), 0)
        largest = most
    tl.store(parts + 2 * split * width + columns, largest, mask=columns < width)
    tl.store(parts + (2 * split + 1) * width + columns, total, mask=columns < width)


@kernel
def join_stats_kernel(stats, parts, width, splits, BLOCK: tl.constexpr):
    """stats (2, width) of all rows: the largest z, and 1 / sum of exp(z - largest)."""
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        mine = tl.load(parts + 2 * split * width + columns, mask=inside, other=0.0)
        most = tl.maximum(largest, mine)
        part = tl.load(parts + (2 * split + 1) * width + columns, mask=inside, other=1.0)
        total = total * tl.exp(largest - most) + part * tl.exp(mine - most)
        largest = most
    tl.store(stats + columns, largest, mask=inside)
    tl.store(stats + width + columns, tl.div_rn(1.0, total), mask=inside)


@triton.jit
def _power_of_two(mode, t, largest):
    """2^e above the largest |S|, with 2^(e-1) not above it, from the bits of the largest |V|."""
    grows, offset, shrink, limit = modes(mode, t)
    magnitude = largest.to(tl.float32, bitcast=True)
    most = update_values(magnitude, kept_factor(magnitude, grows, offset, limit), shrink, limit)
    # infinities and zeros have no such power; what comes of them is no number, or nothing, with any
    exponent = tl.minimum(tl.maximum(((most.to(tl.int32, bitcast=True) >> 23) & 255) - 126, -99), 126)
    return ((127 + exponent) << 23).to(tl.float32, bitcast=True)


@kernel
def form_kernel(
    target, base, notes, work, a, b, alpha, beta, gamma,
    out, width, size, groups, turned, mode, searched, base_row, base_column, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, MIX: tl.constexpr, BASE: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """Write S^T, or base + S^T, into target (out, width).

    After a search (`searched`) t is taken from the workspace and noted; else it is read from the notes: t, with SCALED
    the power of two that S is divided by (else 1), with MIX two numbers for each column.
    """
    if searched != 0:
        t, largest = found(work)
        power = 1.0
        if SCALED:
            power = _power_of_two(mode, t, largest)
        tl.store(notes, t, mask=tl.program_id(0) == 0)
        tl.store(notes + 1, power, mask=tl.program_id(0) == 0)
    else:
        t = tl.load(notes)
        power = tl.load(notes + 1)
    grows, offset, shrink, limit = modes(mode, t)
    for tile in range(tl.program_id(0), tl.cdiv(out, ROWS) * tl.cdiv(width, COLUMNS), tl.num_programs(0)):
        rows, columns = tile_at(tile, width, ROWS, COLUMNS)
        v = plain_values(a, b, rows, columns, out, width, size, groups, turned, scale, beta, MIX)
        if MIX:
            _, p = softmax_part(v, gamma, notes + 2, columns, width)
            v = mixed_values(v, p, alpha)
        s = update_values(v, kept_factor(v, grows, offset, limit), shrink, limit)
        inside = (rows < out)[:, None] & (columns < width)[None, :]
        down = rows.to(tl.int64)[:, None]
        if BASE:
            at = base + down * base_row + columns.to(tl.int64)[None, :] * base_column
            s += tl.load(at, mask=inside, other=0.0)
        if SCALED:
            # exact: a power of two
            s *= 1.0 / power
        tl.store(target + down * width + columns[None, :], rounded(s, target.dtype.element_ty), mask=inside)
