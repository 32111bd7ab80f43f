"""The three kernels of grouped LoRA, each of which runs forward and backward.

Rows are taken in the order of `Chunks`, so that a program has rows of one group only. A group's factors are found
through *items*: a table on the device whose rows say where at most BLOCK_R ranks of one part lie. The kernels take any
factor as M (ranks, columns), a part of a flat tensor: A with columns in sequence, B with ranks in sequence.

    shrink      V[t, r] = s sum_c X[t, c] M[r, c]               forward with A, backward (dV) with B
    expand      Y[t, c] += s sum_r V[t, r] M[r, c]              forward with B, backward (dX) with A
    outer       dM[r, c] = s sum_t V[t, r] G[t, c]              backward, for A and for B

What shrink sums over many columns is split among programs where there are few chunks; their parts are fp32 and expand
adds them up, always in the same order. What outer sums over rows is split likewise and added up after it. No atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.arithmetic import dot, rounded
from peftx_kernels.ops.lora_linear.mask import keep

__all__ = ["expand", "outer", "shrink"]


@triton.jit
def _item(items, item, EVEN: tl.constexpr):  # type: ignore[no-untyped-def]
    """The columns an item covers, where its ranks lie in V and how many they are, and where its M starts."""
    at = items + item * 8
    start = tl.multiple_of(tl.load(at + 1).to(tl.int32), EVEN)
    stop = tl.multiple_of(tl.load(at + 2).to(tl.int32), EVEN)
    base = tl.multiple_of(tl.load(at + 5), EVEN)
    return start, stop, tl.load(at + 3).to(tl.int32), tl.load(at + 4).to(tl.int32), base


@triton.jit
def _places(items, item, base, start, rank, column, ALONG_COLUMNS: tl.constexpr, EVEN: tl.constexpr):  # type: ignore[no-untyped-def]
    """Offsets of M[rank, column] in the flat tensor of all factors; what lies in sequence is known to the compiler."""
    if ALONG_COLUMNS:
        line = tl.multiple_of(tl.load(items + item * 8 + 6), EVEN)
        return base + rank * line + (column - start)
    return base + (column - start) * tl.load(items + item * 8 + 7) + rank


@triton.jit(do_not_specialize=["dropped"])
def shrink(  # type: ignore[no-untyped-def]
    x,  # (rows, columns)
    x_row,  # elements from a row to the next
    order,
    chunk_group,
    chunk_first,
    chunk_count,
    first,  # (groups + 1,) where each group's items start
    items,
    scales,
    matrix,
    v,  # (splits, rows, v_row) fp32
    v_split,
    v_row,
    seed,
    dropped,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ALONG_COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    EVEN: tl.constexpr,  # what all first and last columns are multiples of
):
    """Grid: chunks, items of a group at most, splits."""
    chunk = tl.program_id(0)
    group = tl.load(chunk_group + chunk)
    if group < 0:
        return
    item = tl.load(first + group) + tl.program_id(1)
    if item >= tl.load(first + group + 1):
        return
    start, stop, low, ranks, base = _item(items, item, EVEN)
    place = tl.load(chunk_first + chunk) + tl.arange(0, BLOCK_T)
    here = tl.arange(0, BLOCK_T) < tl.load(chunk_count + chunk)
    row = tl.load(order + place, mask=here, other=0)
    rank = tl.arange(0, BLOCK_R)
    share = tl.cdiv(tl.cdiv(stop - start, BLOCK_C), tl.num_programs(2)) * BLOCK_C
    begin = start + tl.program_id(2) * share
    total = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for at in range(begin, min(begin + share, stop), BLOCK_C):
        column = at + tl.arange(0, BLOCK_C)
        inside = column < stop
        value = tl.load(
            x + row.to(tl.int64)[:, None] * x_row + column[None, :],
            mask=here[:, None] & inside[None, :],
            other=0.0,
        )
        if MASKED:
            value = tl.where(keep(tl.load(seed), dropped, row, at, BLOCK_T, BLOCK_C), value, 0.0)
        m = tl.load(
            matrix + _places(items, item, base, start, rank[None, :], column[:, None], ALONG_COLUMNS, EVEN),
            mask=inside[:, None] & (rank < ranks)[None, :],
            other=0.0,
        )
        total = dot(value, m, total)
    out = v + tl.program_id(2) * v_split + place.to(tl.int64)[:, None] * v_row + (low + rank)[None, :]
    tl.store(out, total * tl.load(scales + item), mask=here[:, None] & (rank < ranks)[None, :])


@triton.jit(do_not_specialize=["splits", "dropped"])
def expand(  # type: ignore[no-untyped-def]
    y,  # (rows, columns) contiguous, added to in place
    columns,
    order,
    chunk_group,
    chunk_first,
    chunk_count,
    first,
    items,
    scales,
    matrix,
    v,
    v_split,
    v_row,
    splits,
    kept,  # (rows, v_row): V summed up, in y's type
    seed,
    dropped,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ALONG_COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    EVEN: tl.constexpr,  # what all first and last columns are multiples of
):
    """Grid: chunks, blocks of columns. The programs of the first columns write `kept`."""
    chunk = tl.program_id(0)
    group = tl.load(chunk_group + chunk)
    if group < 0:
        return
    at = tl.program_id(1) * BLOCK_C
    place = tl.load(chunk_first + chunk) + tl.arange(0, BLOCK_T)
    here = tl.arange(0, BLOCK_T) < tl.load(chunk_count + chunk)
    rank, column = tl.arange(0, BLOCK_R), at + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    touched = group < 0
    for item in range(tl.load(first + group), tl.load(first + group + 1)):
        start, stop, low, ranks, base = _item(items, item, EVEN)
        covers = (start < at + BLOCK_C) & (stop > at)
        if covers | (at == 0):
            there = here[:, None] & (rank < ranks)[None, :]
            offset = place.to(tl.int64)[:, None] * v_row + (low + rank)[None, :]
            thin = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
            for split in range(splits):
                thin += tl.load(v + split * v_split + offset, mask=there, other=0.0)
            narrow = rounded(thin, y.dtype.element_ty)
            if at == 0:
                tl.store(kept + offset, narrow, mask=there)
            m = tl.load(
                matrix
                + _places(items, item, base, start, rank[:, None], column[None, :], ALONG_COLUMNS, EVEN),
                mask=(rank < ranks)[:, None] & (column >= start)[None, :] & (column < stop)[None, :],
                other=0.0,
            )
            total += dot(narrow, m, tl.zeros((BLOCK_T, BLOCK_C), tl.float32)) * tl.load(scales + item)
            touched = touched | covers
    if touched:
        row = tl.load(order + place, mask=here, other=0)
        if MASKED:
            total = tl.where(keep(tl.load(seed), dropped, row, at, BLOCK_T, BLOCK_C), total, 0.0)
        out = y + row.to(tl.int64)[:, None] * columns + column[None, :]
        inside = here[:, None] & (column < columns)[None, :]
        total += tl.load(out, mask=inside, other=0.0).to(tl.float32)
        tl.store(out, rounded(total, y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["dropped"])
def outer(  # type: ignore[no-untyped-def]
    v,  # (rows, v_row), sorted by group
    v_row,
    g,  # (rows, columns), as they came
    g_row,
    order,
    starts,
    items,
    scales,
    out,  # (splits, out_split): flat, each split as all factors M
    out_split,
    seed,
    dropped,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MASKED: tl.constexpr,
    EVEN: tl.constexpr,  # what all first and last columns are multiples of
):
    """Grid: items, blocks of columns, splits."""
    item = tl.program_id(0)
    start, stop, low, ranks, base = _item(items, item, EVEN)
    at = start + tl.program_id(1) * BLOCK_C
    if at >= stop:
        return
    group = tl.load(items + item * 8)
    rank, column = tl.arange(0, BLOCK_R), at + tl.arange(0, BLOCK_C)
    begin, end = tl.load(starts + group), tl.load(starts + group + 1)
    share = tl.cdiv(tl.cdiv(end - begin, BLOCK_T), tl.num_programs(2)) * BLOCK_T
    begin += tl.program_id(2) * share
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for t in range(begin, min(begin + share, end), BLOCK_T):
        place = t + tl.arange(0, BLOCK_T)
        here = place < end
        row = tl.load(order + place, mask=here, other=0)
        thin = tl.load(
            v + place.to(tl.int64)[None, :] * v_row + (low + rank)[:, None],
            mask=here[None, :] & (rank < ranks)[:, None],
            other=0.0,
        )
        value = tl.load(
            g + row.to(tl.int64)[:, None] * g_row + column[None, :],
            mask=here[:, None] & (column < stop)[None, :],
            other=0.0,
        )
        if MASKED:
            value = tl.where(keep(tl.load(seed), dropped, row, at, BLOCK_T, BLOCK_C), value, 0.0)
        total = dot(thin, value, total)
    along, across = tl.load(items + item * 8 + 6), tl.load(items + item * 8 + 7)
    m = base + rank[:, None] * along + (column - start)[None, :] * across
    there = (rank < ranks)[:, None] & (column < stop)[None, :]
    tl.store(out + tl.program_id(2) * out_split + m, total * tl.load(scales + item), mask=there)
