"""A layer of DoRA, and its comparison with float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peftx_kernels import dora_linear
from peftx_kernels.ops.dora_linear import reference
from peftx_kernels.testing import errors

NAMES = ("x", "weight", "bias", "a", "b", "magnitude")


def tensors(rows: tuple[int, ...], width: int, out: int, rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Gates between 0.7 and 1.3; the magnitude in fp32, as an adapter keeps it beside a half-precision model."""
    shapes = ((*rows, width), (out, width), (out,), (rank, width), (out, rank))
    spread = (1.0, width**-0.5, 1.0, width**-0.5, rank**-0.5)
    drawn = zip(NAMES, shapes, spread, strict=False)
    given = {name: (torch.randn(shape) * by).to(dtype) for name, shape, by in drawn}
    merged = given["weight"].double() + 0.7 * given["b"].double() @ given["a"].double()
    given["magnitude"] = (merged.norm(dim=1) * (0.7 + 0.6 * torch.rand(out))).float()
    return {name: t.requires_grad_() for name, t in given.items()}


def against_float64(given: dict[str, Tensor], **options: Any) -> dict[str, float]:
    return errors(dora_linear, reference.dora_linear, given, scale=0.7, **options)
