"""A bottleneck adapter, with whatever may be left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def tensors(
    rows: tuple[int, ...],
    width: int,
    units: int,
    dtype: torch.dtype,
    *,
    norm: bool = True,
    separate: bool = True,
    learned: bool = True,
) -> dict[str, Tensor]:
    def leaf(*shape: int, size: float = 0.5, centre: float = 0.0) -> Tensor:
        return (torch.randn(shape) * size + centre).to(dtype).requires_grad_()

    given = {
        "h": leaf(*rows, width, size=1.0, centre=0.3),
        "down": leaf(units, width),
        "up": leaf(width, units),
        "down_bias": leaf(units),
        "up_bias": leaf(width),
    }
    if separate:
        given["residual"] = leaf(*rows, width, size=1.0)
    if norm:
        given |= {"norm_weight": leaf(width, size=0.2, centre=1.0), "norm_bias": leaf(width)}
    if learned:
        given["scale"] = leaf(size=0.1, centre=0.7)
    return given


def own(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The op with h as its residual."""

    def run(h: Tensor, **options: Any) -> Tensor:
        return op(h, residual=h, **options)

    return run
