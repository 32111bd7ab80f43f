"""The thin products of the layer, each in one pass over its large operand.

    project      S = scale (mask * X) A^T                                reads X once
    output_pass  dS = scale dY B, of pieces of rows of W; dB = dY^T S    reads dY once for both
    gather       dS, summed over the pieces
    down_pass    dA = dS^T (mask * X)                                    reads X once

Sums that several programs share are written in parts, in fp32, and added up afterwards in a fixed order: no atomics,
the same bits in every run. output_pass writes (out / BLOCK_N) [T, R] and a few [out, R] such parts: up to rank 16 far
less than a second pass over dY would read, from there on as much, and two library products are better.
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

__all__ = ["WIDEST", "Thin", "configuration", "down_pass", "gather", "kernels", "output_pass", "project"]


@triton.jit(do_not_specialize=["seed", "dropped", "rows"])
def project(  # type: ignore[no-untyped-def]
    x,  # (rows, width)
    a,  # (ranks, width), contiguous
    scales,  # (ranks,) fp32
    s,  # (rows, ranks), contiguous
    seed,
    dropped,
    rows,
    width,
    ranks,
    x_row,
    DROPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """One tile of S: rows t, ranks r."""
    t0 = tl.program_id(0) * BLOCK_T
    t = tl.arange(0, BLOCK_T)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    k = tl.arange(0, BLOCK_K)
    xs = x + t0.to(tl.int64) * x_row + (t[:, None] * x_row + k[None, :])
    ats = a + (r[None, :] * width + k[:, None])
    acc = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for k0 in range(0, width, BLOCK_K):
        xt = tl.load(xs, mask=(t[:, None] < rows - t0) & (k[None, :] < width - k0), other=0.0)
        if DROPS:
            xt = tl.where(keep(seed, dropped, t0 + t, k0, BLOCK_T, BLOCK_K), xt, 0.0)
        at = tl.load(ats, mask=(r[None, :] < ranks) & (k[:, None] < width - k0), other=0.0)
        acc = dot(xt, at, acc)
        xs += BLOCK_K
        ats += BLOCK_K
    acc *= tl.load(scales + r, mask=r < ranks, other=0.0)[None, :]
    place = s + t0.to(tl.int64) * ranks + (t[:, None] * ranks + r[None, :])
    tl.store(place, rounded(acc, s.dtype.element_ty), mask=(t[:, None] < rows - t0) & (r[None, :] < ranks))


@triton.jit(do_not_specialize=["rows", "share"])
def output_pass(  # type: ignore[no-untyped-def]
    d_y,  # (rows, ...)
    s,  # (rows, ranks), contiguous; for d_b
    b,  # every B in a chain
    d_s,  # (pieces of a part, rows, ranks) fp32, or None
    d_b,  # (splits, entries of b) fp32, or None
    pieces,  # (pieces of all parts) x (part, first row of W, number within the part)
    table,  # parts x (start, stop, low, rank, offset)
    scales,  # (ranks,) fp32
    rows,
    ranks,
    entries,
    share,  # rows a program walks over
    d_y_row,
    ALIGNED: tl.constexpr,  # whether all of the table is multiples of eight
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """One piece of rows of W, one share of the rows of dY."""
    piece = pieces + tl.program_id(0) * 3
    part = table + tl.load(piece) * 5
    n0 = tl.load(piece + 1)
    number = tl.load(piece + 2)
    start = tl.load(part)
    height = tl.load(part + 1) - n0
    low = tl.load(part + 2)
    rank = tl.load(part + 3)
    offset = tl.load(part + 4)
    if ALIGNED:
        ranks = tl.multiple_of(ranks, 8)
        start = tl.multiple_of(start, 8)
        n0 = tl.multiple_of(n0, 8)
        low = tl.multiple_of(low, 8)
        rank = tl.multiple_of(rank, 8)
        offset = tl.multiple_of(offset, 8)
    split = tl.program_id(1)
    first = split * share
    last = min(first + share, rows)

    t = tl.arange(0, BLOCK_T)
    n = tl.arange(0, BLOCK_N)
    r = tl.arange(0, BLOCK_R)
    at_b = offset + (n0 - start) * rank + (n[:, None] * rank + r[None, :])
    mine = (n[:, None] < height) & (r[None, :] < rank)
    if d_s is not None:
        bt = tl.load(b + at_b, mask=mine, other=0.0)
        scale = tl.load(scales + low + r, mask=r < rank, other=0.0)
        d_s += (number.to(tl.int64) * rows + first) * ranks + low
    acc = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    if d_b is not None:
        s += first.to(tl.int64) * ranks + low
    d_y += first.to(tl.int64) * d_y_row + n0
    for t0 in range(first, last, BLOCK_T):
        here = t[:, None] < last - t0
        dy = tl.load(d_y + (t[:, None] * d_y_row + n[None, :]), mask=here & (n[None, :] < height), other=0.0)
        at = t[:, None] * ranks + r[None, :]
        here = here & (r[None, :] < rank)
        if d_s is not None:
            tl.store(
                d_s + at, dot(dy, bt, tl.zeros((BLOCK_T, BLOCK_R), tl.float32)) * scale[None, :], mask=here
            )
            d_s += BLOCK_T * ranks
        if d_b is not None:
            st = tl.load(s + at, mask=here, other=0.0)
            acc = dot(tl.trans(dy), st, acc)
            s += BLOCK_T * ranks
        d_y += BLOCK_T * d_y_row
    if d_b is not None:
        tl.store(d_b + split.to(tl.int64) * entries + at_b, acc, mask=mine)


@triton.jit(do_not_specialize=["rows"])
def gather(  # type: ignore[no-untyped-def]
    parts_of_d_s,  # (pieces of a part, rows, ranks) fp32
    d_s,  # (rows, ranks)
    table,
    rows,
    ranks,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,  # of output_pass
    BLOCK_R: tl.constexpr,
):
    """One tile of dS of one part."""
    part = table + tl.program_id(1) * 5
    pieces = tl.cdiv(tl.load(part + 1) - tl.load(part), BLOCK_N)
    low = tl.load(part + 2)
    rank = tl.load(part + 3)
    t0 = tl.program_id(0) * BLOCK_T
    t = tl.arange(0, BLOCK_T)[:, None]
    r = tl.arange(0, BLOCK_R)[None, :]
    mine = (t < rows - t0) & (r < rank)
    at = t0.to(tl.int64) * ranks + low + (t * ranks + r)
    acc = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for _ in range(pieces):
        acc += tl.load(parts_of_d_s + at, mask=mine, other=0.0)
        parts_of_d_s += rows.to(tl.int64) * ranks
    tl.store(d_s + at, rounded(acc, d_s.dtype.element_ty), mask=mine)


@triton.jit(do_not_specialize=["seed", "dropped", "rows", "share"])
def down_pass(  # type: ignore[no-untyped-def]
    x,  # (rows, width)
    d_s,  # (rows, ranks), contiguous
    d_a,  # (splits, ranks, width) fp32
    seed,
    dropped,
    rows,
    width,
    ranks,
    share,
    x_row,
    DROPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """One tile of dA over one share of the rows of X."""
    k0 = tl.program_id(0) * BLOCK_K
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    split = tl.program_id(2)
    first = split * share
    last = min(first + share, rows)
    t = tl.arange(0, BLOCK_T)
    k = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
    xs = x + first.to(tl.int64) * x_row + k0 + (t[:, None] * x_row + k[None, :])
    dss = d_s + first.to(tl.int64) * ranks + (t[None, :] * ranks + r[:, None])
    for t0 in range(first, last, BLOCK_T):
        xt = tl.load(xs, mask=(t[:, None] < last - t0) & (k[None, :] < width - k0), other=0.0)
        if DROPS:
            xt = tl.where(keep(seed, dropped, t0 + t, k0, BLOCK_T, BLOCK_K), xt, 0.0)
        ds = tl.load(dss, mask=(t[None, :] < last - t0) & (r[:, None] < ranks), other=0.0)
        acc = dot(ds, xt, acc)
        xs += BLOCK_T * x_row
        dss += BLOCK_T * ranks
    place = d_a + split.to(tl.int64) * ranks * width + k0 + (r[:, None] * width + k[None, :])
    tl.store(place, acc, mask=(r[:, None] < ranks) & (k[None, :] < width - k0))


class Thin(NamedTuple):
    """A configuration: the blocks of tokens, of the wide side and of ranks, warps and stages."""

    t: int
    wide: int
    r: int
    warps: int
    stages: int


#: the largest rank of a part that output_pass takes
WIDEST = 16

_PROJECT = {"low": Thin(32, 128, 16, 4, 3), "high": Thin(32, 128, 64, 4, 3)}
_PROJECT |= {"uneven": Thin(32, 64, 16, 4, 2), "exact": Thin(32, 32, 16, 4, 2)}
_DOWN = {"low": Thin(64, 128, 16, 4, 3), "high": Thin(64, 128, 64, 4, 3)}
_DOWN |= {"uneven": Thin(32, 64, 16, 4, 2), "exact": Thin(32, 32, 16, 4, 2)}
_OUTPUT = {"low": Thin(32, 256, 16, 8, 3), "uneven": Thin(32, 64, 16, 4, 2), "exact": Thin(32, 64, 16, 4, 2)}
_CHOICES = {"project": _PROJECT, "down_pass": _DOWN, "output_pass": _OUTPUT}


def configuration(kernel: str, rank: int, dtype: torch.dtype, *, even: bool) -> Thin:
    """Return the blocks of a kernel, by name: estimates from the cost model, not measured.

    `even`: all row lengths are multiples of 16; where they are not, every entry needs an address of its own.
    """
    if dtype.itemsize == 4:
        return _CHOICES[kernel]["exact"]
    if not even:
        return _CHOICES[kernel]["uneven"]
    return _CHOICES[kernel]["low" if rank <= 16 else "high"]


def kernels() -> Iterator[Kernel]:
    """Every configuration, with dropout."""
    for name, function in (("project", project), ("output_pass", output_pass), ("down_pass", down_pass)):
        for choice, at in _CHOICES[name].items():
            for dtype in (
                ("fp32",) if choice == "exact" else ("bf16", "fp16") if choice == "low" else ("bf16",)
            ):
                yield _kernel(name, function, dtype, at, even=choice in ("low", "high"))
    for height in dict.fromkeys(at.wide for at in _OUTPUT.values()):
        types = {"parts_of_d_s": "*fp32", "d_s": "*bf16", "table": "*i32", "rows": "i32", "ranks": "i32"}
        constants = {"BLOCK_T": 128, "BLOCK_N": height, "BLOCK_R": WIDEST}
        yield Kernel(gather, types | dict.fromkeys(constants, "constexpr"), constants)


def _kernel(name: str, function: object, dtype: str, at: Thin, *, even: bool) -> Kernel:
    wide = f"*{dtype}"
    blocks: dict[str, object] = {
        "BLOCK_T": at.t,
        "BLOCK_N" if name == "output_pass" else "BLOCK_K": at.wide,
        "BLOCK_R": at.r,
    }
    if name == "output_pass":
        types = {
            "d_y": wide,
            "s": wide,
            "b": wide,
            "d_s": "*fp32",
            "d_b": "*fp32",
            "pieces": "*i32",
            "table": "*i32",
        }
        types |= {"scales": "*fp32"} | dict.fromkeys(("rows", "ranks", "entries", "share", "d_y_row"), "i32")
        constants = {"ALIGNED": even, **blocks}
    else:
        to = {"a": wide, "scales": "*fp32", "s": wide} if name == "project" else {"d_s": wide, "d_a": "*fp32"}
        sizes = ("rows", "width", "ranks", *(() if name == "project" else ("share",)), "x_row")
        types = {"x": wide} | to | {"seed": "i64", "dropped": "i32"} | dict.fromkeys(sizes, "i32")
        constants = {"DROPS": True, **blocks}
    divisible = [key for key, kind in types.items() if kind.startswith("*")]
    divisible += [key for key in ("width", "ranks", "entries", "x_row", "d_y_row") if key in types]
    types |= dict.fromkeys(constants, "constexpr")
    return Kernel(function, types, constants, tuple(divisible) if even else (), at.warps, at.stages)
