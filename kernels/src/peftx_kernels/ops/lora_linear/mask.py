"""The dropout mask inside the kernels: a function of the seed and the place, drawn again wherever it is needed.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with seven rounds, the fewest that pass every
test there. One call gives 128 bits, 16 for each of eight neighbouring entries: the rate is rounded to 1/65536, as on a
CPU. Tiles of any size that start at a multiple of eight draw the same mask.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["keep"]


@triton.jit
def keep(seed, dropped, t, column, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return whether entries (t, column .. column + BLOCK_K) are kept: all but `dropped` of 65536.

    Args:
        t: rows, (BLOCK_T,) int32.
        column: the first column, a multiple of eight.
    """
    group = column // 8 + tl.arange(0, BLOCK_K // 8)
    counter = t[:, None] + tl.zeros((BLOCK_T, BLOCK_K // 8), tl.int32)
    other = group[None, :] + tl.zeros((BLOCK_T, BLOCK_K // 8), tl.int32)
    zero = counter * 0
    one, two, three, four = tl.philox(seed, counter, other, zero, zero, 7)
    words = tl.join(tl.join(one, two), tl.join(three, four))
    levels = tl.reshape(tl.join(words & 0xFFFF, words >> 16), (BLOCK_T, BLOCK_K))
    return levels.to(tl.int32) >= dropped
