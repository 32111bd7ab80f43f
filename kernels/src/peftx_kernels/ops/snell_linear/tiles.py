"""A kernelised map in blocks: distances, thinning, and the contraction of its gradient to thin factors.

Every pass over a map costs as much as reading it, so all passes over one block follow each other while it is in the
cache, write where they read, and the map itself is never kept. Rows are outputs: a block lines up with one of W.

Distances are taken from differences, not from |a|^2 + |b|^2 - 2 a.b, which cancels for the short, close vectors these
are. With more than four coordinates on a CPU the expanded square is formed in float64 instead (twice as fast at 16):
its error is then 1e-8 of the longest vector, below float32's own, and shorter distances count as zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from peftx_kernels.ops.snell_linear.part import SnellPart
from peftx_kernels.ops.snell_linear.quantile import magnitude_quantile

__all__ = ["Contraction", "Kernel", "keep_factor", "put_update", "threshold"]

_LARGEST = 1 << 17  # entries of a block: half a megabyte, a few of which fit a core's second-level cache
_LARGEST_DEVICE = 1 << 19
_SMALLEST = 1 << 14
_NARROWEST = 96  # columns: shorter rows cost more than a larger block
_FEW = 4  # coordinates up to which plain differences are as fast as a product


class Block(NamedTuple):
    """Rows top..bottom and columns left..right of a map (out, in)."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, t: Tensor) -> Tensor:
        """The block of a map or a weight."""
        return t[self.top : self.bottom, self.left : self.right]

    def room(self, flat: Tensor) -> Tensor:
        """A block's shape in memory that holds the largest of them."""
        rows, columns = self.bottom - self.top, self.right - self.left
        return flat[: rows * columns].view(rows, columns)


class Kernel:
    """One part's map, ready to be formed in blocks; dtype is float32 or float64.

    Blocks are whole rows, or with a mixture whole columns: a column holds all outputs of one input, so that the softmax
    and its Jacobian stay inside a block.
    """

    def __init__(self, part: SnellPart, dtype: torch.dtype) -> None:
        self.part = part
        self.dtype = dtype
        a, b = part.a.detach().to(dtype), part.b.detach().to(dtype)
        self.a, self.b = (
            a.transpose(1, 2).contiguous(),
            b.transpose(1, 2).contiguous(),
        )  # (H, d, in), (H, d, out)
        self.groups, self.width, self.rows = a.shape[0], a.shape[1], b.shape[1]
        self.mix = None if part.mix is None else tuple(t.detach().to(dtype).reshape(1) for t in part.mix)
        # a block in float64 counts twice; all that are needed stay below one map
        in_double = dtype is torch.float32 and a.shape[2] > _FEW and a.device.type == "cpu"
        entries = max(self.rows * self.width // (20 if in_double else 12), _SMALLEST)
        entries = min(entries, _LARGEST if a.device.type == "cpu" else _LARGEST_DEVICE)
        if self.mix is None:
            self.step = min(max(entries // self.width, 1), self.rows)
            self.size = self.step * self.width
        else:
            self.step = min(max(entries // self.rows, _NARROWEST // (3 if in_double else 1)), self.width)
            self.size = self.step * self.rows
        self._products: tuple[Tensor, Tensor, list[float]] | None = None
        if in_double:
            self._products = self._expanded(a.double(), b.double())
            self._wide = a.new_empty(self.size, dtype=torch.float64)

    @staticmethod
    def _expanded(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        """(H, out, d + 2), (H, d + 2, in) whose products are squared distances, and what counts as zero."""
        a_sq, b_sq = a.square().sum(2, keepdim=True), b.square().sum(2, keepdim=True)
        left = torch.cat((b, torch.ones_like(b_sq), b_sq), 2)
        right = torch.cat((-2 * a, a_sq, torch.ones_like(a_sq)), 2).transpose(1, 2).contiguous()
        # 2^-24 of the longest vector is where float32 coordinates end
        return left, right, [2.0**-46 * float(longest) for longest in (a_sq.amax((1, 2)) + b_sq.amax((1, 2)))]

    def blocks(self) -> Iterator[Block]:
        """All of the map, in order."""
        if self.mix is None:
            for top in range(0, self.rows, self.step):
                yield Block(top, min(top + self.step, self.rows), 0, self.width)
            return
        for left in range(0, self.width, self.step):
            yield Block(0, self.rows, left, min(left + self.step, self.width))

    def buffers(self, count: int) -> list[Tensor]:
        """Memory for `count` blocks."""
        return [self.a.new_empty(self.size) for _ in range(count)]

    def distance(self, group: int, block: Block, out: Tensor, spare: Tensor) -> Tensor:
        """Write D_group^T of a block into `out`; `spare` is overwritten."""
        if self._products is not None:
            left, right, zero = self._products
            wide = block.room(self._wide)
            torch.mm(
                left[group, block.top : block.bottom], right[group, :, block.left : block.right], out=wide
            )
            return torch.threshold_(out.copy_(wide), zero[group], 0.0).sqrt_()
        a = self.a[group, :, block.left : block.right]
        b = self.b[group, :, block.top : block.bottom, None]
        torch.sub(a[0], b[0], out=out)
        if a.shape[0] == 1:
            return out.abs_()
        out.mul_(out)
        for coordinate in range(1, a.shape[0]):
            torch.sub(a[coordinate], b[coordinate], out=spare)
            out.addcmul_(spare, spare)
        return out.sqrt_()

    def combine(self, distances: list[Tensor], out: Tensor) -> Tensor:
        """Write V^T = scale (D_0 - D_1 + ...) into `out`, which may be the first distance; with a mixture V^T + beta.

        The softmax does not see that a constant was added, and adding it here is free.
        """
        beta = None if self.mix is None else self.mix[2]
        if len(distances) == 1:
            torch.mul(distances[0], self.part.scale, out=out)
            return out if beta is None else out.add_(beta)
        torch.sub(distances[0], distances[1], out=out)
        for group, distance in enumerate(distances[2:], 2):
            out.add_(distance, alpha=1 - 2 * (group % 2))
        if beta is None:
            return out.mul_(self.part.scale)
        return torch.add(beta, out, alpha=self.part.scale, out=out)

    def shares(self, v: Tensor, out: Tensor) -> Tensor:
        """Write softmax over the outputs of V / gamma, for a block of whole columns, into `out`."""
        assert self.mix is not None
        torch.div(v, self.mix[1], out=out)
        out.sub_(out.amax(0)).exp_()
        return out.mul_(out.sum(0).reciprocal_())

    def mixed(self, v: Tensor, shares: Tensor, out: Tensor) -> Tensor:
        """Write V' = V + beta + alpha shares into `out`, which may be `v`."""
        assert self.mix is not None
        return torch.addcmul(v, shares, self.mix[0], out=out)

    def fill(self, out: Tensor) -> None:
        """Write V^T, with a mixture V'^T, of the whole map into `out` (rows, in)."""
        spare, *others = self.buffers(1 + self.groups)
        for block in self.blocks():
            rest = block.room(spare)
            distances = [block.room(other) for other in others]
            for group, room in enumerate(distances):
                self.distance(group, block, room, rest)
            target = block.of(out)
            if self.mix is None:
                self.combine(distances, target)
            else:
                v = self.combine(distances, distances[0])
                self.mixed(v, self.shares(v, rest), target)


def threshold(part: SnellPart, v: Tensor) -> Tensor:
    """t of a whole map, 0-dimensional; NaN for the mode that has none."""
    if part.mode == "dense":
        return v.new_full((), math.nan)
    return magnitude_quantile(v, part.sparsity, smallest=part.mode == "paper")


def keep_factor(mode: str, v: Tensor, t: float | Tensor, out: Tensor) -> Tensor:
    """Write what the gradient of S is multiplied by on its way to V into `out` (not for ``dense``)."""
    torch.abs(v, out=out)
    if mode == "paper":
        return out.sub_(t).clamp_min_(0.0)
    if mode == "official" and isinstance(t, float):
        return torch.threshold_(out, t, 0.0)
    return out.mul_(out > t) if mode == "official" else torch.gt(out, t, out=out)


def put_update(
    mode: str, v: Tensor, factor: Tensor, t: float | Tensor, base: Tensor | None, out: Tensor
) -> None:
    """Write base + S^T of one block into `out`, which may be `v`; `factor` is what `keep_factor` wrote."""
    if mode in ("official", "paper"):
        if base is None:
            torch.mul(v, factor, out=out)
        else:
            torch.addcmul(base, v, factor, out=out)
        return
    if mode == "soft":
        limit: Any = t
        torch.sub(v, torch.clamp(v, -limit, limit), out=out)
    elif out is not v:
        out.copy_(v)
    if base is not None:
        out.add_(base)


class Contraction:
    """Sums of R_h = dL/dD_h against the factors: dA_h = diag(R_h 1) A_h - R_h B_h, and B's likewise."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        a, b = kernel.a, kernel.b
        # the thin side first, and a row of ones for the sums: CPU libraries are slow on narrow results
        self._a = torch.cat((a, a.new_ones(a.shape[0], 1, a.shape[2])), 1)
        self._b = torch.cat((b, b.new_ones(b.shape[0], 1, b.shape[2])), 1)
        self._to_a, self._to_b = torch.zeros_like(self._a), torch.zeros_like(self._b)

    def add(self, block: Block, distances: list[Tensor], d_v: Tensor) -> None:
        """Take in one block; the distances are overwritten. Where a distance is zero its gradient is, too."""
        rows, columns = slice(block.top, block.bottom), slice(block.left, block.right)
        for group, distance in enumerate(distances):
            torch.div(d_v, torch.threshold_(distance, 0.0, math.inf), out=distance)
            self._to_b[group, :, rows].addmm_(self._a[group, :, columns], distance.t())
            self._to_a[group, :, columns].addmm_(self._b[group, :, rows], distance)

    def result(self) -> tuple[Tensor, Tensor]:
        """(dA, dB) in the factors' layout."""
        kernel = self.kernel
        signs = [kernel.part.scale * (1 - 2 * (group % 2)) for group in range(kernel.groups)]
        scale = kernel.a.new_tensor(signs).view(-1, 1, 1)
        d_a = torch.addcmul(-self._to_a[:, :-1], self._to_a[:, -1:], kernel.a).mul_(scale)
        d_b = torch.addcmul(-self._to_b[:, :-1], self._to_b[:, -1:], kernel.b).mul_(scale)
        return d_a.transpose(1, 2), d_b.transpose(1, 2)
