"""How an implementation of an op is judged: its value and every gradient against float64, on a random cotangent.

For our own tests, and for plugins that register another implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["TOLERANCES", "errors", "relative_error", "within"]

#: relative error in the Frobenius norm that a value may have against float64, by type; gradients may have twice that
TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 5e-3,
    torch.float16: 1e-3,
}


def relative_error(got: Tensor, want: Tensor) -> float:
    """``||got - want|| / ||want||`` in the Frobenius norm, computed in float64; NaN where either has one."""
    got, want = got.detach().to("cpu", torch.float64), want.detach().to("cpu", torch.float64)
    if got.shape != want.shape:
        raise AssertionError(f"shape {tuple(got.shape)}, expected {tuple(want.shape)}")
    return float((got - want).norm() / want.norm().clamp(min=1e-30)) if want.numel() else 0.0


def errors(
    op: Callable[..., Any],
    reference: Callable[..., Any],
    tensors: Mapping[str, Tensor | None],
    **options: Any,
) -> dict[str, float]:
    """Relative errors of an op's value (``y``) and of the gradient of every tensor that requires one (by name).

    Both are called as ``f(**tensors, **options)``; the reference on float64 copies. One random cotangent, drawn from
    torch's default generator, goes through both. A gradient that is missing, or that nobody asked for, is an error of
    infinity.
    """
    ours = {name: _leaf(t, None) for name, t in tensors.items()}
    exact = {name: _leaf(t, torch.float64) for name, t in tensors.items()}
    value, want = op(**ours, **options), reference(**exact, **options)
    found = {"y": relative_error(value, want)}
    wanting = [name for name, t in tensors.items() if t is not None and t.requires_grad]
    if not wanting:
        return found
    cotangent = torch.randn(want.shape, dtype=torch.float64).to(value.dtype)
    value.backward(cotangent.to(value.device))
    want.backward(cotangent.to(want))
    for name, t in ours.items():
        if t is None:
            continue
        true = exact[name]
        assert true is not None
        if name not in wanting:
            if t.grad is not None:
                found[name] = float("inf")
        elif t.grad is None or true.grad is None:
            found[name] = float("inf")
        else:
            found[name] = relative_error(t.grad, true.grad)
    return found


def within(found: Mapping[str, float], dtype: torch.dtype) -> bool:
    """Whether the `errors` of an op that ran in this type are within `TOLERANCES`; gradients have twice that."""
    return all(error <= TOLERANCES[dtype] * (1 if name == "y" else 2) for name, error in found.items())


def _leaf(tensor: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """A leaf of the same values, strides and wish for a gradient."""
    if tensor is None:
        return None
    fresh = tensor.detach().to(dtype or tensor.dtype)
    if fresh is tensor or fresh.data_ptr() == tensor.data_ptr():
        fresh = torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
        ).copy_(tensor.detach())
    return fresh.requires_grad_(tensor.requires_grad)
