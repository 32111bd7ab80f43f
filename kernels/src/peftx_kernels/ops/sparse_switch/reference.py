"""Sparse switching as one would write it down: what every other tier must give, to the last bit."""

from __future__ import annotations

import torch

from peftx_kernels.context import wide
from peftx_kernels.ops.sparse_switch.tables import SparseTable

__all__ = ["sparse_switch"]


def sparse_switch(off: SparseTable | None, on: SparseTable | None) -> None:
    """Put the originals of `off` back; then remember those of `on` and write its values."""
    if off is not None:
        assert off.originals is not None
        parts = zip(off.targets, off.parts_of(off.indices), off.originals, strict=True)
        for target, index, original in parts:
            target.detach().view(-1)[index.long()] = original
        off.originals = None
    if on is not None:
        on.originals = []
        parts = zip(on.targets, on.parts_of(on.indices), on.parts_of(on.values), strict=True)
        for target, index, value in parts:
            flat = target.detach().view(-1)
            original = flat[index.long()]
            if on.add:
                high = torch.promote_types(wide(target.dtype), value.dtype)
                value = original.to(high) + value.to(high)
            flat[index.long()] = value.to(target.dtype)
            on.originals.append(original)
