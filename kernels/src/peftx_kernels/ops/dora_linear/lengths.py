"""Kernels for the row lengths of W + s B A, without the matrix: three launches, and no question to the device.

    gram     G = A A^T, in shares of the width
    terms    2 s sum_r B (W A^T + (s / 2) B G), in tiles of (rows of W, ranks): W is read once for a block of ranks
    finish   n^2 = ||W||^2 + the terms; rows in which they cancel are formed after all

Sums are fp32. Tiles of one half-precision type are multiplied as they are, which is exact; an fp32 factor beside them
as the sum of two bfloat16 numbers, with 2^-17 of the correction left out. The workspace holds G and partial sums of
rows, in as many shares as `most_shares` allows; an update as a matrix would take (out, width).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from peftx_kernels.aot import Kernel
from peftx_kernels.arithmetic import dot, rounded

__all__ = ["FINISH", "INNER", "Lengths", "configuration", "finish", "gram", "kernels", "most_shares", "terms"]


@triton.jit
def _split_dot(a, b, acc):  # type: ignore[no-untyped-def]
    """acc + a @ b for fp32 tiles, each as the sum of two bfloat16 ones."""
    a_high = rounded(a, tl.bfloat16)
    b_high = rounded(b, tl.bfloat16)
    acc = dot(a_high, rounded(b - b_high.to(tl.float32), tl.bfloat16), acc)
    acc = dot(rounded(a - a_high.to(tl.float32), tl.bfloat16), b_high, acc)
    return dot(a_high, b_high, acc)


@triton.jit
def _factor_dot(a, b, acc, SPLIT: tl.constexpr):  # type: ignore[no-untyped-def]
    """acc + a @ b; with SPLIT the types of the two may differ in any way."""
    if not SPLIT:
        return dot(a, b.to(a.dtype), acc)
    b = b.to(tl.float32)
    if a.dtype == tl.bfloat16:  # has no lower part
        high = rounded(b, tl.bfloat16)
        acc = dot(a, rounded(b - high.to(tl.float32), tl.bfloat16), acc)
        return dot(a, high, acc)
    return _split_dot(a.to(tl.float32), b, acc)


@triton.jit
def gram(  # type: ignore[no-untyped-def]
    a,  # (ranks, width)
    g,  # (shares, ranks, ranks) fp32
    ranks,
    width,
    share,  # columns of A that a program walks over
    EXACT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of G over one share of the columns of A."""
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    q = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    first = tl.program_id(2) * share
    last = min(first + share, width)
    k = first + tl.arange(0, BLOCK_K)
    down = a + r[:, None] * width
    across = a + q[None, :] * width
    acc = tl.zeros((BLOCK_R, BLOCK_R), tl.float32)
    for _ in range(first, last, BLOCK_K):
        one = tl.load(down + k[None, :], mask=(r[:, None] < ranks) & (k[None, :] < last), other=0.0)
        two = tl.load(across + k[:, None], mask=(q[None, :] < ranks) & (k[:, None] < last), other=0.0)
        if EXACT:
            acc = dot(one.to(tl.float32), two.to(tl.float32), acc)
        else:
            acc = _split_dot(one.to(tl.float32), two.to(tl.float32), acc)
        k += BLOCK_K
    place = g + tl.program_id(2) * ranks * ranks + (r[:, None] * ranks + q[None, :])
    tl.store(place, acc, mask=(r[:, None] < ranks) & (q[None, :] < ranks))


@triton.jit
def terms(  # type: ignore[no-untyped-def]
    weight,  # (out, width)
    a,  # (ranks, width)
    b,  # (out, ranks)
    g,  # (ranks, ranks) fp32
    sums,  # (blocks of ranks x shares, out) fp32
    scale,
    out,
    width,
    ranks,
    share,  # columns of W that a program walks over
    weight_row,
    weight_column,
    EXACT: tl.constexpr,  # fp32 throughout
    SPLIT: tl.constexpr,  # A of another type than a half-precision W
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """The terms of a block of rows from a block of ranks, over one share of the columns of W."""
    n0 = tl.program_id(0) * BLOCK_N
    n = tl.arange(0, BLOCK_N)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    part = tl.program_id(2)
    first = part * share
    last = min(first + share, width)
    b += n0 * ranks
    acc = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    if part == 0:
        for q0 in range(0, ranks, BLOCK_Q):
            q = q0 + tl.arange(0, BLOCK_Q)
            at = b + (n[:, None] * ranks + q[None, :])
            bt = tl.load(at, mask=(n[:, None] < out - n0) & (q[None, :] < ranks), other=0.0)
            gt = tl.load(
                g + (q[:, None] * ranks + r[None, :]),
                mask=(q[:, None] < ranks) & (r[None, :] < ranks),
                other=0.0,
            )
            if EXACT:
                acc = dot(bt.to(tl.float32), gt, acc)
            else:
                acc = _split_dot(bt.to(tl.float32), gt, acc)
        acc *= 0.5 * scale
    weight += n0.to(tl.int64) * weight_row
    k = first + tl.arange(0, BLOCK_K)
    for _ in range(first, last, BLOCK_K):
        at = weight + (n[:, None] * weight_row + k[None, :] * weight_column)
        wt = tl.load(at, mask=(n[:, None] < out - n0) & (k[None, :] < last), other=0.0)
        a_t = tl.load(
            a + (r[None, :] * width + k[:, None]), mask=(r[None, :] < ranks) & (k[:, None] < last), other=0.0
        )
        acc = _factor_dot(wt, a_t, acc, SPLIT)
        k += BLOCK_K
    at = b + (n[:, None] * ranks + r[None, :])
    bt = tl.load(at, mask=(n[:, None] < out - n0) & (r[None, :] < ranks), other=0.0)
    total = tl.sum(acc * bt.to(tl.float32), 1) * (2.0 * scale)
    place = sums + (tl.program_id(1) * tl.num_programs(2) + part).to(tl.int64) * out + n0 + n
    tl.store(place, total, mask=n < out - n0)


@triton.jit(do_not_specialize=["parts"])
def finish(  # type: ignore[no-untyped-def]
    weight_sq,  # (out,) fp32
    sums,  # (parts, out) fp32
    weight,
    a,
    b,
    norm,  # (out,) fp32
    scale,
    cancelled,
    out,
    width,
    ranks,
    parts,
    weight_row,
    weight_column,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Row lengths of a block of rows, from the terms; from the rows themselves where the terms cancel."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    base = tl.load(weight_sq + n, mask=n < out, other=0.0)
    squares = base
    for _ in range(parts):
        squares += tl.load(sums + n, mask=n < out, other=0.0)
        sums += out
    bad = (squares < cancelled * base) & (n < out)
    if tl.max(bad.to(tl.int32), 0) > 0:
        dense = tl.zeros((BLOCK_N,), tl.float32)
        far = n[:, None].to(tl.int64) * weight_row
        for k0 in range(0, width, BLOCK_K):
            k = k0 + tl.arange(0, BLOCK_K)
            row = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
            for r0 in range(0, ranks, BLOCK_R):
                r = r0 + tl.arange(0, BLOCK_R)
                at = b + (n[:, None] * ranks + r[None, :])
                bt = tl.load(at, mask=bad[:, None] & (r[None, :] < ranks), other=0.0)
                at = a + (r[:, None] * width + k[None, :])
                a_t = tl.load(at, mask=(r[:, None] < ranks) & (k[None, :] < width), other=0.0)
                row = dot(bt.to(tl.float32), a_t.to(tl.float32), row)
            at = weight + far + (k * weight_column)[None, :]
            wt = tl.load(at, mask=bad[:, None] & (k[None, :] < width), other=0.0)
            row = wt.to(tl.float32) + scale * row
            dense += tl.sum(row * row, 1)
        squares = tl.where(bad, dense, squares)
    # the length of an all-zero row: what is divided by it is then huge but finite. NaN is no smaller, and stays
    squares = tl.where(squares < 1e-24, 1e-24, squares)
    tl.store(norm + n, tl.sqrt_rn(squares), mask=n < out)


class Lengths(NamedTuple):
    """A configuration of `terms`, and of `gram` with it: blocks of rows, ranks and columns, warps and stages."""

    n: int
    r: int
    k: int
    warps: int
    stages: int


_LOW = Lengths(64, 16, 128, 4, 3)
_HIGH = Lengths(128, 128, 64, 8, 3)
_SPLIT = Lengths(128, 64, 64, 8, 3)
_UNEVEN = Lengths(64, 32, 32, 4, 2)
_EXACT = Lengths(32, 32, 32, 4, 2)

#: blocks of `finish`, and of the ranks in the product with G
FINISH = {"BLOCK_N": 16, "BLOCK_R": 32, "BLOCK_K": 64}
INNER = 32

_MOST = 1 << 19  # entries of G in all its shares, where it has several: 2 MiB


def configuration(ranks: int, dtype: torch.dtype, *, even: bool, split: bool) -> Lengths:
    """Return the blocks for a weight of that type: estimates from the cost model, not measured.

    Args:
        even: all row lengths are multiples of 16; where they are not, every entry needs an address of its own.
        split: A has another type than the weight. `gram` is always of this kind.
    """
    if dtype.itemsize == 4:
        return _EXACT
    if not even:
        return _UNEVEN
    if ranks <= _LOW.r:
        return _LOW
    return _SPLIT if split else _HIGH


def most_shares(ranks: int) -> int:
    """Return into how many shares the width may be cut for `gram`, whose workspace grows with them."""
    return max(1, _MOST // (ranks * ranks))


def kernels() -> Iterator[Kernel]:
    """Every configuration in the types it is chosen for, and some of those in a W that lies the other way."""
    half, mixed = ("bf16", "bf16", False), ("bf16", "fp32", True)
    uses: dict[Lengths, tuple[tuple[str, str, bool], ...]] = {
        _LOW: (half, mixed, ("fp16", "fp16", False)),
        _HIGH: (half, ("fp16", "fp16", False)),
        _SPLIT: (mixed, ("fp16", "fp32", True)),
        _UNEVEN: (half, mixed),
        _EXACT: (("fp32", "fp32", False), ("fp32", "bf16", False)),
    }
    for at, given in uses.items():
        even = at in (_LOW, _HIGH, _SPLIT)
        for weight, factor, split in given:
            yield _terms(at, weight, factor, split, even, "weight_column")
            if (weight, factor) == ("bf16", "fp32"):
                yield _terms(at, weight, factor, split, even, "weight_row")
        if at is not _HIGH:
            for factor in ("bf16", "fp32"):
                yield _gram(at, factor, even)
    for weight, factor in (("bf16", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")):
        types = {"weight_sq": "*fp32", "sums": "*fp32", "weight": f"*{weight}", "a": f"*{factor}"}
        types |= {"b": f"*{factor}", "norm": "*fp32", "scale": "fp32", "cancelled": "fp32"}
        types |= dict.fromkeys(("out", "width", "ranks", "parts", "weight_row", "weight_column"), "i32")
        yield _kernel(finish, types, {"weight_column": 1, **FINISH}, _EXACT, weight == "bf16")


def _terms(at: Lengths, weight: str, factor: str, split: bool, even: bool, contiguous: str) -> Kernel:
    """`contiguous`: the stride of W that is 1."""
    types = {"weight": f"*{weight}", "a": f"*{factor}", "b": f"*{factor}", "g": "*fp32", "sums": "*fp32"}
    types |= {"scale": "fp32"}
    types |= dict.fromkeys(("out", "width", "ranks", "share", "weight_row", "weight_column"), "i32")
    blocks = {"BLOCK_N": at.n, "BLOCK_R": at.r, "BLOCK_K": at.k, "BLOCK_Q": INNER}
    constants = {contiguous: 1, "EXACT": at is _EXACT, "SPLIT": split, **blocks}
    return _kernel(terms, types, constants, at, even)


def _gram(at: Lengths, factor: str, even: bool) -> Kernel:
    types = {"a": f"*{factor}", "g": "*fp32", "ranks": "i32", "width": "i32", "share": "i32"}
    constants: dict[str, object] = {"EXACT": at is _EXACT, "BLOCK_R": at.r, "BLOCK_K": at.k}
    return _kernel(gram, types, constants, at, even)


def _kernel(
    function: object, types: dict[str, str], constants: Mapping[str, object], at: Lengths, even: bool
) -> Kernel:
    divisible = [key for key, kind in types.items() if kind.startswith("*")]
    lengths = ("width", "weight_row", "weight_column", "share", "ranks")
    divisible += [key for key in lengths if key in types and key not in constants]
    types = types | dict.fromkeys(constants, "constexpr")
    return Kernel(function, types, constants, tuple(divisible) if even else (), at.warps, at.stages)
