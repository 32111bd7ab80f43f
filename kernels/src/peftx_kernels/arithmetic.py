"""Products of tiles and rounding inside kernels, with the same result on a GPU and through Triton's interpreter.

The interpreter keeps bfloat16 as integers: it would multiply those, and it cuts digits off where a GPU rounds. What is
done about that happens there alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.availability import interpreting

__all__ = ["dot", "rounded"]

_INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def dot(a, b, acc):  # type: ignore[no-untyped-def]
    """Return acc + a @ b for tiles of one type and an fp32 acc; products of fp32 tiles are exact fp32 ones."""
    if _INTERPRETED:
        a = a.to(tl.float32)  # every half-precision number is one in fp32
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def rounded(x, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return an fp32 tile in another type, rounded to the nearest, ties to even."""
    if _INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        up = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536  # of the rest it would make a number near 1e-38
        x = tl.where(x == x, up, bits).to(tl.float32, bitcast=True)  # not of NaN
    return x.to(dtype)
