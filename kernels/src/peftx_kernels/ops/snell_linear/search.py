"""The exact order statistic of a map's magnitudes on the device, without the map and without a host read.

The bit pattern of a non-negative float32 is monotone in its value, so the k-th smallest magnitude is found from the top
down, 11, 11 and 9 bits at a time: each pass forms the tiles again and counts, among the entries whose higher bits are
those found so far, how many have which next bits. Counts are integers: however programs interleave, they are the same.

A pass begins by finding the bucket of the pass before in that one's counts, every program for itself, which costs less
than a launch in between. The workspace: three histograms, then (bits found, rank left) in front of each pass, the
largest pattern, how far below the largest int the smallest pattern above all candidates is, and the weight of the
quantile's upper neighbour.
"""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.ops.snell_linear.maps import (
    kernel,
    mixed_values,
    plain_values,
    softmax_part,
    tile_at,
)

__all__ = ["PASSES", "RANK", "WEIGHT", "WORDS", "begin_kernel", "count_kernel", "found"]

# mypy: disable-error-code="no-untyped-def"

PASSES = 3
_BINS = tl.constexpr(1 << 11)
_STATE = tl.constexpr(PASSES * (1 << 11))
_LARGEST = tl.constexpr(PASSES * (1 << 11) + 2 * PASSES)
_ABOVE = tl.constexpr(PASSES * (1 << 11) + 2 * PASSES + 1)
_WEIGHT = tl.constexpr(PASSES * (1 << 11) + 2 * PASSES + 2)
_MOST = tl.constexpr(0x7FFFFFFF)
_INFINITE = tl.constexpr(0x7F800000)
#: where in the workspace rank and weight of the wanted quantile are
RANK, WEIGHT = PASSES * (1 << 11) + 1, PASSES * (1 << 11) + 2 * PASSES + 2
#: int32 of workspace, which one program of begin_kernel writes
WORDS = 1 << 13


@kernel
def begin_kernel(work, rank, weight, WORDS: tl.constexpr):
    """Zeros, and what is looked for: `rank` from 0 (-1: the threshold is 0), bits of its upper neighbour's weight."""
    at = tl.arange(0, WORDS)
    value = tl.where(at == _STATE + 1, rank, 0)
    value = tl.where(at == _WEIGHT, weight, value)
    tl.store(work + at, value)


@triton.jit
def _bucket(work, step):
    """(counts up to and with each bucket, buckets, the one that holds the rank, how many come before it)."""
    buckets = tl.arange(0, _BINS)
    counts = tl.load(work + step * _BINS + buckets)
    up_to = tl.cumsum(counts, 0)
    rank = tl.load(work + _STATE + 2 * step + 1)
    bucket = tl.sum((up_to <= rank).to(tl.int32), 0)
    return counts, buckets, bucket, rank - tl.sum(tl.where(buckets < bucket, counts, 0), 0)


@triton.jit
def _before(work, step):
    """(higher bits, rank among those who share them) with which pass `step` begins."""
    higher = 0
    rank = tl.load(work + _STATE + 1)
    if step > 0:
        _, _, bucket, rank = _bucket(work, step - 1)
        higher = (tl.load(work + _STATE + 2 * step - 2) << 11) | bucket
    return higher, rank


@kernel
def count_kernel(
    work, a, b, alpha, beta, gamma, stats, out, width, size, groups, turned, step, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, MIX: tl.constexpr,
):  # fmt: skip
    """Pass `step`: add this program's share of the counts to the workspace."""
    higher, rank = _before(work, step)
    top = 31 - 11 * step
    low = tl.maximum(top - 11, 0)
    counts = tl.zeros((_BINS,), tl.int32)
    largest = 0
    above = 0
    for tile in range(tl.program_id(0), tl.cdiv(out, ROWS) * tl.cdiv(width, COLUMNS), tl.num_programs(0)):
        rows, columns = tile_at(tile, width, ROWS, COLUMNS)
        v = plain_values(a, b, rows, columns, out, width, size, groups, turned, scale, beta, MIX)
        if MIX:
            _, p = softmax_part(v, gamma, stats, columns, width)
            v = mixed_values(v, p, alpha)
        inside = (rows < out)[:, None] & (columns < width)[None, :]
        bits = tl.abs(v).to(tl.int32, bitcast=True)
        first = bits >> top
        key = (bits >> low) & ((1 << (top - low)) - 1)
        counts += tl.histogram(tl.ravel(key), _BINS, mask=tl.ravel(inside & (first == higher)))
        largest = tl.maximum(largest, tl.max(tl.where(inside, bits, 0)))
        above = tl.maximum(above, tl.max(tl.where(inside & (first > higher), _MOST - bits, 0)))
    tl.atomic_add(work + step * _BINS + tl.arange(0, _BINS), counts, mask=counts > 0)
    tl.atomic_max(work + _LARGEST, largest)
    tl.atomic_max(work + _ABOVE, above, mask=step == 2)
    tl.store(work + _STATE + 2 * step, higher, mask=tl.program_id(0) == 0)
    tl.store(work + _STATE + 2 * step + 1, rank, mask=tl.program_id(0) == 0)


@triton.jit
def found(work):
    """(t, the largest magnitude) after all passes: low + weight (high - low), NaN where the map holds one."""
    counts, buckets, bucket, left = _bucket(work, 2)
    higher = tl.load(work + _STATE + 4) << 9
    low = higher | bucket
    # the next candidate, or else the smallest entry above all of them
    following = tl.min(tl.where((buckets > bucket) & (counts > 0), buckets, _MOST), 0)
    beyond = _MOST - tl.load(work + _ABOVE)
    high = tl.where(following < _MOST, higher | following, beyond)
    same = tl.sum(tl.where(buckets == bucket, counts, 0), 0)
    # another entry of the same value follows; or none does at all
    high = tl.where((left + 1 < same) | (high == _MOST), low, high)
    lower = low.to(tl.float32, bitcast=True)
    upper = high.to(tl.float32, bitcast=True)
    weight = tl.load(work + _WEIGHT).to(tl.float32, bitcast=True)
    # as torch.lerp does it; infinite neighbours times nothing are no number
    step = upper - lower
    between = tl.where(weight < 0.5, lower + weight * step, upper - step * (1.0 - weight))
    t = tl.where(weight > 0.0, between, lower)
    t = tl.where(tl.load(work + _STATE + 1) < 0, 0.0, t)
    largest = tl.load(work + _LARGEST)
    t = tl.where(largest > _INFINITE, float("nan"), t)
    return t, largest
