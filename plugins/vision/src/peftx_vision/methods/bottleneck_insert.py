"""Inserts that are one call of `peftx_kernels.bottleneck`, which adds the residual stream as well."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from peftx.adapters.insert import Insert

__all__ = ["BottleneckInsert"]


class BottleneckInsert(Insert):
    """``y + A(x)`` in one operation: `run` is A(x), with the stream added where it is given."""

    @abstractmethod
    def run(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """A(x), or residual + A(x), of the shape of x (..., d)."""

    def insert(self, x: Tensor) -> Tensor:
        return self.run(x, None)

    def add(self, y: Tensor, x: Tensor) -> Tensor:
        # what was tapped may be flattened on the way to y (Swin); y itself, in sequence, has to stay itself
        return self.run(x if x.shape == y.shape else x.reshape(y.shape), y).to(y.dtype)
