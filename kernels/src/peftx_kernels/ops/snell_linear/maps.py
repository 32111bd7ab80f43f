"""What every Triton kernel of this op begins with: one tile of a map, formed in registers from the thin factors.

A map is formed again in each pass and thinned by comparing it with a threshold found in another one, so the passes must
agree to the last bit. Therefore each step below is one instruction that rounds once, whatever the compiler does around
it: differences, squares summed by explicit multiply-adds, square root and quotients rounded to nearest. Distances from
differences, since |a|^2 + |b|^2 - 2 a.b cancels for the short, close vectors these are, and tensor cores would round
them to 11 bits besides.

Layouts: a map is (out, width), like the weight; factors are float32 and contiguous, a (groups, width, size) and b
(groups, out, size), or `turned`, (groups, size, width) and (groups, size, out), so that coordinates of neighbouring
rows are read in few transactions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

__all__ = [
    "coordinates",
    "distances",
    "kept_factor",
    "kernel",
    "mixed_values",
    "modes",
    "plain_values",
    "softmax_part",
    "tile_at",
    "update_values",
]

# mypy: disable-error-code="no-untyped-def"


def kernel(function: Callable[..., Any]) -> Any:
    """``triton.jit`` of which there is one form: nothing is known of lengths or of where pointers lie.

    Known alignment would buy wider loads, and with them a layout in which a thread has neighbouring columns; all that
    is computed here would be exchanged between threads on the way to it, tile by tile. As it is a thread reads,
    computes and adds up the same columns (each 32nd or 128th), and a warp reads whole lines.
    """
    parameters = inspect.signature(function).parameters.values()
    plain = [p.name for p in parameters if "constexpr" not in str(p.annotation)]
    return triton.jit(do_not_specialize=plain)(function)


@triton.jit
def tile_at(tile, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(rows, columns) of a tile; tiles are counted along the rows of the map."""
    across = tl.cdiv(width, COLUMNS)
    rows = (tile // across) * ROWS + tl.arange(0, ROWS)
    return rows, (tile % across) * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def coordinates(length, size, turned):
    """(from one row of a factor to the next, from one coordinate to the next)."""
    return tl.where(turned != 0, 1, size), tl.where(turned != 0, length, 1)


@triton.jit
def distances(a, b, group, rows, columns, out, width, size, turned):
    """D_group^T = ||b[row] - a[column]|| of a tile; of rows and columns past the end what zeros would give."""
    b_row, b_step = coordinates(out, size, turned)
    a_row, a_step = coordinates(width, size, turned)
    down = b + group * out * size + rows * b_row
    across = a + group * width * size + columns * a_row
    in_rows = rows < out
    in_columns = columns < width
    squares = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for _ in range(size):
        left = tl.load(down, mask=in_rows, other=0.0)
        right = tl.load(across, mask=in_columns, other=0.0)
        apart = right[None, :] - left[:, None]
        squares = tl.fma(apart, apart, squares)
        down += b_step
        across += a_step
    return tl.sqrt_rn(squares)


@triton.jit
def plain_values(a, b, rows, columns, out, width, size, groups, turned, scale, beta, MIX: tl.constexpr):
    """V = scale (D_0 - D_1 + ...); with a mixture V + beta, which its softmax does not see."""
    v = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for group in range(groups):
        # the product is exact, so a multiply-add rounds as the sum does
        v += (1.0 - 2.0 * (group % 2)) * distances(a, b, group, rows, columns, out, width, size, turned)
    if MIX:
        return tl.fma(v, tl.zeros_like(v) + scale, tl.zeros_like(v) + tl.load(beta))
    else:
        return v * scale


@triton.jit
def softmax_part(v, gamma, stats, columns, width):
    """(z - largest, p) with z = V / gamma and p its softmax over the outputs; `stats` holds two numbers a column."""
    largest = tl.load(stats + columns, mask=columns < width, other=0.0)
    share = tl.load(stats + width + columns, mask=columns < width, other=0.0)
    below = tl.div_rn(v, tl.zeros_like(v) + tl.load(gamma)) - largest[None, :]
    return below, tl.exp(below) * share[None, :]


@triton.jit
def mixed_values(v, p, alpha):
    """V' = V + beta + alpha p."""
    return tl.fma(p, tl.zeros_like(p) + tl.load(alpha), v)


@triton.jit
def modes(mode, t):
    """(grows, offset, shrink, limit) with which the four modes are one formula; see `kept_factor`."""
    return mode < 2, tl.where(mode == 1, -t, 0.0), tl.where(mode == 2, t, 0.0), tl.where(mode == 3, -1.0, t)


@triton.jit
def kept_factor(v, grows, offset, limit):
    """K, by which the gradient of S is multiplied on its way to V: |V| + offset, or 1, where |V| > limit; else 0."""
    magnitude = tl.abs(v)
    # a NaN is not larger than anything, and must stay one
    return tl.where(magnitude > limit, tl.where(grows, magnitude + offset, 1.0), magnitude * 0.0)


@triton.jit
def update_values(v, factor, shrink, limit):
    """S = V K, or V minus the threshold towards zero (soft)."""
    towards = tl.where(v < 0, -shrink, shrink)
    return tl.where(tl.abs(v) > limit, v * factor - towards, v * 0.0)
