"""Sparse switching from library calls, weight by weight: a weight's lines are still in the cache at its next step.

All of it is memory that is touched here and there, so what counts is how often: `index_select` and `index_copy_` on the
flat weight touch each line once (a `scatter_` in bf16 rewrites the whole weight on a CPU, indexing with ``[]`` takes
three times as long). Where both adapters change the same entries of a weight, as random masks of one seed do, what
`off` kept is what `on` would find, and the weight is written once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peftx_kernels.context import wide
from peftx_kernels.ops.sparse_switch.tables import SparseTable

__all__ = ["sparse_switch"]


def sparse_switch(off: SparseTable | None, on: SparseTable | None) -> None:
    """See ``peftx_kernels.sparse_switch``."""
    waiting: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    if off is not None:
        assert off.originals is not None
        parts = zip(off.targets, off.parts_of(off.indices), off.originals, strict=True)
        waiting = {id(target): (target, index, original) for target, index, original in parts}
    originals: list[Tensor] = []
    if on is not None:
        parts = zip(on.targets, on.parts_of(on.indices), on.parts_of(on.values), strict=True)
        for target, index, value in parts:
            flat, at = target.detach().view(-1), index.long()
            known = None
            if id(target) in waiting:
                _, other, original = waiting.pop(id(target))
                if other.shape == index.shape and torch.equal(other, index):
                    known = original
                else:
                    flat.index_copy_(0, other.long(), original)
            found = flat.index_select(0, at) if known is None else known
            flat.index_copy_(0, at, _written(found, value) if on.add else value.to(found.dtype))
            originals.append(found)
    for target, index, original in waiting.values():
        target.detach().view(-1).index_copy_(0, index.long(), original)
    if off is not None:
        off.originals = None
    if on is not None:
        on.originals = originals


def _written(original: Tensor, value: Tensor) -> Tensor:
    """original + value, in fp32 at least, rounded once. Adding two tensors of one half type does that by itself."""
    if value.dtype is original.dtype:
        return original + value
    high = torch.promote_types(wide(original.dtype), value.dtype)
    return (original.to(high) + value.to(high)).to(original.dtype)
