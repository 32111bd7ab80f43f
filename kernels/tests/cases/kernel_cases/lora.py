"""A linear layer and the factors of one correction."""

from __future__ import annotations

import torch
from torch import Tensor


def tensors(rows: tuple[int, ...], width: int, out: int, rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = {
        "x": (*rows, width),
        "weight": (out, width),
        "bias": (out,),
        "a": (rank, width),
        "b": (out, rank),
    }
    spread = {"weight": max(1, width) ** -0.5, "a": max(1, width) ** -0.5, "b": rank**-0.5}
    return {
        name: (torch.randn(shape) * spread.get(name, 1.0)).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }
