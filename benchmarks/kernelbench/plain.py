"""The operations as one would write them in a model, in the types the model has: what ours are compared with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bottleneck", "dora", "grouped", "lora", "peft_linear", "snell"]


def lora(x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The base product, and a correction that is scaled and added."""
    return F.linear(x, weight, bias) + scale * F.linear(F.linear(x, a), b)


def dora(
    x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, magnitude: Tensor, scale: float
) -> Tensor:
    """As the paper: the norm of the merged weight, a constant for the backward pass."""
    with torch.no_grad():
        norm = torch.linalg.vector_norm(weight + scale * (b @ a), dim=1)
    gate = (magnitude / norm).to(x.dtype)
    return gate * (F.linear(x, weight) + scale * F.linear(F.linear(x, a), b)) + bias


def snell(x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, scale: float, rate: float) -> Tensor:
    """Dense maps of distances, their quantile by sorting, and the sum with the weight; V |V| where |V| is above it."""
    v = scale * (torch.cdist(b[0], a[0]) - torch.cdist(b[1], a[1]))
    size = v.detach().abs()
    at = int(rate * (v.numel() - 1))
    factor = size * (size > size.flatten().sort().values[at])
    return F.linear(x, weight + (v * factor).to(weight.dtype), bias)


def grouped(
    x: Tensor, weight: Tensor, bias: Tensor, parts: list[tuple[Tensor, Tensor, Tensor]], scale: float
) -> Tensor:
    """One product for all, then for each adapter (rows, a, b) its own rows, gathered and added."""
    y = F.linear(x, weight, bias)
    for at, a, b in parts:
        y = y.index_add(0, at, scale * F.linear(F.linear(x[at], a), b))
    return y


def bottleneck(
    h: Tensor, down: Tensor, up: Tensor, down_bias: Tensor, up_bias: Tensor, scale: float
) -> Tensor:
    """Down, GELU, up, scaled and added to its input."""
    return h + scale * F.linear(F.gelu(F.linear(h, down, down_bias)), up, up_bias)


def peft_linear(tensors: dict[str, Tensor], rank: int, alpha: float, *, use_dora: bool) -> Any:
    """The adapted layer of the ``peft`` package, with these very tensors in it."""
    import peft
    from torch import nn

    weight, bias = tensors["weight"], tensors["bias"]
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"], use_dora=use_dora)
    model = peft.get_peft_model(nn.Sequential(layer), config, autocast_adapter_dtype=False)
    made = model.base_model.model[0]
    made.lora_A["default"].weight = nn.Parameter(tensors["a"].detach())
    made.lora_B["default"].weight = nn.Parameter(tensors["b"].detach())
    if use_dora:
        vector = made.lora_magnitude_vector["default"]
        vector.weight = nn.Parameter(tensors["magnitude"].detach().to(weight.dtype))
    return made
