"""One kernel for both large products of the layer: a product, a low-rank term that its accumulator starts from, a gate.

    forward     out[t, n] = g[n] (sum_k X[t, k] W[n, k] + sum_p S_p[t] . B_p[n] + bias[n]) + (1 - g[n]) bias[n]
    backward    out[t, k] = sum_n dY[t, n] W[n, k] + mask[t, k] sum_r dS[t, r] A[r, k]

S and dS hold the scales. The low-rank term so costs no pass over the output: what is read besides the two large
operands are the thin ones. Where a library's product is much faster than ours (long sums), it writes `out` first and
the same kernel, without operands of its own, adds the rest in place: two passes over the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from peftx_kernels.aot import Kernel
from peftx_kernels.arithmetic import dot, rounded
from peftx_kernels.ops.lora_linear.mask import keep

__all__ = ["Tile", "configuration", "kernels", "product"]


@triton.jit(do_not_specialize=["seed", "dropped", "parts", "rows"])
def product(  # type: ignore[no-untyped-def]
    x,  # (rows, inner), or None: then out holds the product already
    w,  # (columns, inner) by the two strides
    out,  # (rows, columns), contiguous
    bias,  # (columns,) or None
    gate,  # (columns,) fp32, or None
    left,  # (rows, ranks), contiguous: S or dS
    right,  # every B in a chain, each (stop - start, rank); or A, (ranks, columns)
    table,  # parts x (start, stop, low, rank, offset)
    seed,
    dropped,
    rows,
    columns,
    inner,
    ranks,
    parts,
    x_row,
    w_column,
    w_inner,
    BY_RANK: tl.constexpr,  # whether ranks are the contiguous side of `right`
    ALIGNED: tl.constexpr,  # whether ranks and offsets are multiples of eight
    DROPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BAND: tl.constexpr,
):
    """out = gated(x w^T + left right + bias), or gated(out + left right) in place; see above."""
    # programs that run together share rows of x and of w: bands of BAND tiles of rows, column by column
    program = tl.program_id(0)
    across = BAND * tl.cdiv(columns, BLOCK_J)
    first = program // across * BAND
    height = min(tl.cdiv(rows, BLOCK_T) - first, BAND)
    t0 = (first + program % across % height) * BLOCK_T
    j0 = program % across // height * BLOCK_J
    # 64 bits reach the corner of a tile, 32 go on from there: a tile of 64-bit addresses would fill the registers
    t = tl.arange(0, BLOCK_T)[:, None]
    j = tl.arange(0, BLOCK_J)[None, :]
    if ALIGNED:
        ranks = tl.multiple_of(ranks, 8)
    left += t0.to(tl.int64) * ranks

    acc = tl.zeros((BLOCK_T, BLOCK_J), tl.float32)
    for part in range(parts):
        start = tl.load(table + part * 5)
        stop = tl.load(table + part * 5 + 1)
        if (start < j0 + BLOCK_J) & (stop > j0):
            low = tl.load(table + part * 5 + 2)
            rank = tl.load(table + part * 5 + 3)
            offset = tl.load(table + part * 5 + 4)
            if ALIGNED:
                low = tl.multiple_of(low, 8)
                rank = tl.multiple_of(rank, 8)
                offset = tl.multiple_of(offset, 8)
            for r0 in range(0, rank, BLOCK_R):
                r = r0 + tl.arange(0, BLOCK_R)
                s = tl.load(
                    left + t * ranks + (low + r)[None, :],
                    mask=(t < rows - t0) & (r[None, :] < rank),
                    other=0.0,
                )
                if BY_RANK:
                    place = offset + (j0 - start + j) * rank + r[:, None]
                else:
                    place = r[:, None] * columns + (j0 + j)
                mine = (j >= start - j0) & (j < stop - j0) & (r[:, None] < rank)
                b = tl.load(right + place, mask=mine, other=0.0)
                acc = dot(s, b, acc)
    if DROPS:
        acc = tl.where(keep(seed, dropped, t0 + tl.arange(0, BLOCK_T), j0, BLOCK_T, BLOCK_J), acc, 0.0)

    if x is not None:
        i = tl.arange(0, BLOCK_I)
        xs = x + t0.to(tl.int64) * x_row + (t * x_row + i[None, :])
        ws = w + j0.to(tl.int64) * w_column + (j * w_column + i[:, None] * w_inner)
        for i0 in range(0, inner, BLOCK_I):
            xt = tl.load(xs, mask=(t < rows - t0) & (i[None, :] < inner - i0), other=0.0)
            wt = tl.load(ws, mask=(j < columns - j0) & (i[:, None] < inner - i0), other=0.0)
            acc = dot(xt, wt, acc)
            xs += BLOCK_I
            ws += BLOCK_I * w_inner

    corner = t0.to(tl.int64) * columns + j0
    within = (t < rows - t0) & (j < columns - j0)
    if x is None:
        acc += tl.load(out + corner + (t * columns + j), mask=within, other=0.0).to(tl.float32)
    elif bias is not None:
        acc += tl.load(bias + j0 + j, mask=j < columns - j0, other=0.0).to(tl.float32)
    if gate is not None:
        g = tl.load(gate + j0 + j, mask=j < columns - j0, other=0.0)
        acc *= g
        if bias is not None:
            acc += (1.0 - g) * tl.load(bias + j0 + j, mask=j < columns - j0, other=0.0).to(tl.float32)
    tl.store(out + corner + (t * columns + j), rounded(acc, out.dtype.element_ty), mask=within)


class Tile(NamedTuple):
    """A configuration: the tile of the output, the steps along the sum and along the ranks, warps and stages."""

    t: int
    j: int
    i: int
    r: int
    warps: int
    stages: int

    @property
    def constants(self) -> dict[str, int]:
        return {"BLOCK_T": self.t, "BLOCK_J": self.j, "BLOCK_I": self.i, "BLOCK_R": self.r, "BAND": 8}


_LARGE = Tile(128, 128, 32, 32, 8, 4)  # with steps of 64 some use or other spills on sm_100
_SMALL = Tile(128, 64, 64, 32, 8, 3)
_UNEVEN = Tile(64, 64, 32, 32, 4, 2)
_EXACT = Tile(32, 32, 32, 32, 4, 2)


def configuration(rows: int, columns: int, dtype: torch.dtype, *, even: bool, plain: bool) -> Tile:
    """Return the tile for an output of that shape: estimates from the cost model, not measured.

    Args:
        even: all row lengths are multiples of 16; where they are not, every entry needs an address of its own.
        plain: with a product and without dropout; the other uses have more to hold in registers.
    """
    if dtype.itemsize == 4:
        return _EXACT
    if not even:
        return _UNEVEN
    # a large tile reads least; a small one leaves no multiprocessor without work
    return _LARGE if plain and rows * columns >= 132 * _LARGE.t * _LARGE.j else _SMALL


def kernels() -> Iterator[Kernel]:
    """Every configuration in every use it is chosen for: the forward with all that it can do."""
    for use in ("forward", "backward"):
        for tile in (_LARGE, _SMALL):
            yield _kernel(use, "bf16", tile, even=True, aligned=False)  # a rank such as 4
    for dtype in ("bf16", "fp16", "fp32"):
        if dtype != "fp32":
            yield _kernel("forward", dtype, _LARGE, even=True)
            yield _kernel("backward", dtype, _LARGE, even=True)
        tiles = {"bf16": (_SMALL, _UNEVEN), "fp16": (_SMALL,), "fp32": (_EXACT,)}[dtype]
        for tile in tiles:
            for use in ("forward", "backward", "added forward", "added backward"):
                yield _kernel(use, dtype, tile, even=tile is _SMALL)


def _kernel(use: str, dtype: str, tile: Tile, *, even: bool, aligned: bool | None = None) -> Kernel:
    """`added`: in place of a library's product."""
    forward = use.endswith("forward")
    given = "constexpr" if use.startswith("added") else f"*{dtype}"
    extra = f"*{dtype}" if forward else "constexpr"
    types = {"x": given, "w": given, "out": f"*{dtype}", "bias": extra}
    types |= {"gate": "*fp32" if forward else "constexpr", "left": f"*{dtype}", "right": f"*{dtype}"}
    types |= {"table": "*i32", "seed": "i64", "dropped": "i32"}
    types |= dict.fromkeys(
        ("rows", "columns", "inner", "ranks", "parts", "x_row", "w_column", "w_inner"), "i32"
    )
    contiguous = "w_inner" if forward else "w_column"
    aligned = even if aligned is None else aligned
    flags = {
        "BY_RANK": forward,
        "ALIGNED": aligned,
        "DROPS": not forward and tile is not _LARGE,
    } | tile.constants
    constants = {name: None for name, kind in types.items() if kind == "constexpr"} | {contiguous: 1} | flags
    types |= dict.fromkeys((contiguous, *flags), "constexpr")
    divisible = [name for name, kind in types.items() if kind.startswith("*")]
    divisible += [name for name in ("columns", "inner", "x_row", "w_column", "w_inner") if name != contiguous]
    divisible += ["ranks"] if aligned else []
    return Kernel(product, types, constants, tuple(divisible) if even else (), tile.warps, tile.stages)
