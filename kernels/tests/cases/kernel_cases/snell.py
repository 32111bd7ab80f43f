"""A linear layer and parts of SNELL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peftx_kernels import SnellPart


def a_part(start: int, stop: int, width: int, shape: tuple[int, int] = (2, 3), **fields: Any) -> SnellPart:
    groups, coordinates = shape
    a, b = ((torch.randn(groups, n, coordinates) * 0.4).requires_grad_() for n in (width, stop - start))
    mixed = fields.pop("mix", False)
    mix = tuple(torch.tensor([v]).requires_grad_() for v in (1.3, 0.7, 0.2)) if mixed else None
    return SnellPart(start, stop, a, b, **{"sparsity": 0.6, "scale": 0.7, "mix": mix, **fields})


def factors(*parts: SnellPart) -> list[Tensor]:
    return [t for part in parts for t in (part.a, part.b, *(part.mix or ()))]


def layer(rows: tuple[int, ...], width: int, out: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = ((*rows, width), (out, width), (out,))
    return [(torch.randn(shape) * width**-0.5).to(dtype).requires_grad_() for shape in shapes]
