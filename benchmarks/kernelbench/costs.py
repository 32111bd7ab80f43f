"""What an operation cannot do without: multiplications and additions, and bytes that must be read or written once.

Compulsory traffic alone: every input is read and every result written once, whatever lies between. What is kept for the
backward pass is written in the forward and read in the backward. `e` is the bytes of a number of x; trained factors are
counted in that type, too.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost", "bottleneck", "dora", "grouped", "lora", "snell", "switch"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating-point operations and bytes."""

    flop: float
    traffic: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.traffic + other.traffic)


def lora(rows: int, inner: int, out: int, rank: int, e: int) -> tuple[Cost, Cost]:
    """Forward and backward of y = x W^T + bias + s x A^T B^T; S = x A^T is kept, W frozen."""
    thin = rank * (inner + out)
    forward = Cost(
        2 * rows * inner * out + 2 * rows * thin,
        e * (rows * inner + inner * out + thin + out + rows * out + rows * rank),
    )
    backward = Cost(  # dX; dS, dB, dA and dX's second term
        2 * rows * inner * out + 4 * rows * thin,
        e * (rows * out + rows * inner + inner * out + thin + rows * rank + rows * inner + thin),
    )
    return forward, backward


def dora(rows: int, inner: int, out: int, rank: int, e: int) -> tuple[Cost, Cost]:
    """LoRA with a gate; before the forward the norm by thin products, the row sums of W^2 being there."""
    forward, backward = lora(rows, inner, out, rank, e)
    norm = Cost(
        2 * inner * out * rank + 2 * rank * rank * (inner + out),
        e * (inner * out + rank * (inner + out)) + 8 * out,
    )
    gate = Cost(rows * out, 8 * out)
    return forward + norm + gate, backward + Cost(
        3 * rows * out, e * rows * out + 8 * out
    )  # reads y, writes dm


def snell(rows: int, inner: int, out: int, groups: int, width: int, e: int) -> tuple[Cost, Cost]:
    """y = x (W + S^T)^T: distances of factors (groups, in, width) and (groups, out, width), made again each way."""
    maps = Cost(2 * groups * width * inner * out, 4 * groups * width * (inner + out))
    product = 2 * rows * inner * out
    forward = maps + Cost(product, e * (rows * inner + inner * out + out + rows * out))
    backward = maps + Cost(
        2 * product + 4 * groups * width * inner * out,
        e * (rows * out + 2 * rows * inner + inner * out) + 4 * groups * width * (inner + out),
    )
    return forward, backward


def grouped(rows: int, inner: int, out: int, rank: int, groups: int, e: int) -> tuple[Cost, Cost]:
    """LoRA whose rows have one adapter each: the arithmetic of one, the factors of all."""
    forward, backward = lora(rows, inner, out, rank, e)
    others = (groups - 1) * rank * (inner + out)
    return forward + Cost(0, e * others), backward + Cost(0, 2 * e * others)


def bottleneck(rows: int, width: int, hidden: int, e: int) -> tuple[Cost, Cost]:
    """o = h + s f(h Wd^T) Wu^T; u = h Wd^T is kept."""
    product = 4 * rows * width * hidden
    weights = 2 * width * hidden
    forward = Cost(product, e * (2 * rows * width + weights + rows * hidden))
    return forward, Cost(2 * product, e * (3 * rows * width + 2 * weights + rows * hidden))


def switch(values: int, share: float, e: int) -> Cost:
    """One sparse adapter written over a share of so many values: index, value, original, and the lines of memory.

    A line is 32 bytes, the least a GPU moves; of random sorted entries it holds one with probability 1 - (1 - share)^k.
    """
    entries = values * share
    a_line = 32 // e
    lines = values / a_line * (1 - (1 - share) ** a_line)
    return Cost(entries, entries * (4 + 2 * e) + 2 * 32 * lines)
