"""What surrounds the maps, the same for every implementation: flat inputs, dropped entries drawn again from seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import as_rows
from peftx_kernels.dropout import keep_mask, kept_fraction
from peftx_kernels.ops.snell_linear.part import SnellPart

__all__ = [
    "Drops",
    "add_masked",
    "add_product",
    "columns_of",
    "dropped_input",
    "rebuilt_input",
    "tensors_of",
]


class Drops(NamedTuple):
    """What of the updates' input is zero in a training pass: single entries and whole samples, as two seeds."""

    dropout: float
    drop_path: float
    seed: int
    path_seed: int

    def __bool__(self) -> bool:
        return self.dropout > 0 or self.drop_path > 0

    def mask(self, like: Tensor, shape: torch.Size) -> Tensor:  # (T, in) or (T, 1)
        """What an input of `shape`, flat `like`, is multiplied by: zeros, and one over the share that is kept."""
        mask: Any = None
        if self.dropout > 0:
            mask = keep_mask(like, self.dropout, self.seed).div_(kept_fraction(self.dropout))
        if self.drop_path > 0:
            samples = shape[0] if len(shape) > 1 else 1
            path = keep_mask(like.new_empty((samples, 1)), self.drop_path, self.path_seed)
            path = path.div_(kept_fraction(self.drop_path))
            if samples:
                path = path.repeat_interleave(like.shape[0] // samples, dim=0)
            mask = path if mask is None else mask.mul_(path)
        return mask


def tensors_of(parts: Sequence[SnellPart]) -> list[Tensor]:
    """The tensors of all parts, in the order of their fields."""
    return list(itertools.chain.from_iterable((p.a, p.b, *(p.mix or ())) for p in parts))


def columns_of(y: Tensor, start: int, stop: int) -> Tensor:
    """The columns of a part."""
    return y if start == 0 and stop == y.shape[1] else y[:, start:stop]


def rebuilt_input(x: Tensor | None, source: ActivationSource | None, dtype: torch.dtype) -> Tensor:
    """The flat input: the kept one, or what the source makes again."""
    if source is not None:
        return as_rows(source.recompute()).to(dtype)
    assert x is not None
    return as_rows(x)


def dropped_input(x: Tensor, shape: torch.Size, drops: Drops) -> Tensor:
    """The updates' input: what is dropped is zero, the rest scaled up."""
    return x * drops.mask(x, shape) if drops else x


def add_product(y: Tensor, left: Tensor, right: Tensor, scale: Tensor | None) -> None:
    """y += scale (left right), in place."""
    if scale is None:
        y.addmm_(left, right)
    else:
        y.add_((left @ right).mul_(scale))


def add_masked(d_x: Tensor, d_y: Tensor, update: Tensor, scale: Tensor | None, mask: Tensor | None) -> None:
    """d_x += mask scale (d_y update), in place."""
    if mask is None:
        add_product(d_x, d_y, update, scale)
        return
    product = d_y @ update
    d_x.addcmul_(product if scale is None else product.mul_(scale), mask)
