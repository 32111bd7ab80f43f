"""Sparse updates as entries of the stored weights, whatever part of a weight and in whatever layout a site sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peftx.adapters.base import to_canonical
from peftx.adapters.delta import Delta

__all__ = ["entries_of"]


def entries_of(deltas: Sequence[Delta], parameter: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return (flat indices, ascending; what is added there) of one stored weight, or None where that is not all.

    Args:
        deltas: all that change the weight: of one adapter, the slices of it.
        parameter: the weight as its module stores it.
    """
    if not parameter.is_contiguous() or any(delta.changes_bias for delta in deltas):
        return None
    parts: list[tuple[Tensor, Tensor]] = []
    end = 0
    for delta in sorted(deltas, key=lambda delta: delta.site.rows or (0, 0)):
        found = delta.sparse()
        start, stop = delta.site.rows or (0, delta.site.shape[0])
        if found is None or start < end:  # rows that another one has already: a second adapter
            return None
        end = stop
        width = delta.site.matrix[1]
        parts.append((found[0] + start * width, found[1].detach()))
    indices, values = (torch.cat(some) if len(some) > 1 else some[0] for some in zip(*parts, strict=True))
    if to_canonical(deltas[0].site.kind, parameter) is parameter:
        return indices, values
    rows, width = parameter.shape  # stored the other way round
    order = (indices % rows * width + indices.div(rows, rounding_mode="floor")).sort()
    return order.values, values[order.indices]
