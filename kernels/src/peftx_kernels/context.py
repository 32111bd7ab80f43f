"""What every op asks before it computes: autocast, tracing, checkpointing.

Ops cast their own inputs (custom functions do not follow autocast's lists) and then compute with autocast off, so that
norms and gates stay in fp32 and a backward pass run inside an autocast region computes what the forward pass did.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "as_rows",
    "autocast_off",
    "compute_dtype",
    "is_checkpointing",
    "is_tracing",
    "on_device",
    "own_linear",
    "wide",
]

_AUTOCAST_DEVICES = frozenset({"cpu", "cuda", "xpu", "mps", "hpu"})


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype ``F.linear(x, ...)`` computes in: autocast's where it is on (never for float64), else x's."""
    device = x.device.type
    if device in _AUTOCAST_DEVICES and x.dtype is not torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def autocast_off(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which nothing is cast behind our back; free where autocast is off anyway."""
    device = x.device.type
    if device in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def as_rows(t: Tensor) -> Tensor:  # (..., D) -> (T, D)
    """Return a tensor with all dimensions but the last in one: a view where that can be, t itself where it is so."""
    return t if t.dim() == 2 else t.reshape(-1, t.shape[-1])


def on_device(t: Tensor) -> AbstractContextManager[object]:
    """Return a context in which the tensor's GPU is the current one: Triton launches on that, whatever it is given."""
    return torch.cuda.device(t.device) if t.is_cuda else nullcontext()


def own_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``F.linear(x, weight, bias)`` for the forward of a custom function to return.

    Some releases of torch compute it flat and return a view of that, and autograd forbids everybody, the model
    included, to change in place a view that a custom function returned. Below autograd nothing is tracked as a view.
    """
    with torch._C._AutoDispatchBelowADInplaceOrView():
        return F.linear(x, weight, bias)


def is_tracing() -> bool:
    """Return True under torch.compile, torch.export, torch.func and fake tensors: the plain functional form runs."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
    )


def is_checkpointing() -> bool:
    """Return True inside a (non-reentrant) activation checkpoint: what is kept there can be read once only."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of norms and sums over tensors of ``dtype``: float64 stays, everything else is fp32."""
    return torch.float64 if dtype is torch.float64 else torch.float32
