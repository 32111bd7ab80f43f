"""How a launch of Triton kernels becomes an operation that torch knows.

A launcher is a plain function from tensors to new tensors. In eager mode it is called as it is, because every layer of
dispatch costs as much as a small kernel. Where a compiler or fake tensors trace, the same function is called as a
``torch.library`` operation, which the tracer takes as one opaque step; what it would fuse is fused already. Autograd is
not part of it: each op has a ``torch.autograd.Function`` whose two passes call raw ops. A launcher runs with the device
of its first tensor as the current one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from peftx_kernels.context import is_tracing, on_device

__all__ = ["RawOp", "raw_op"]

# later releases of Triton change the default, and with it the last bits of every kernel
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


class RawOp:
    """One launcher: called directly in eager mode, as ``torch.ops.peftx.NAME`` while a compiler traces."""

    def __init__(self, name: str, launch: Callable[..., Any], schema: str, fake: Callable[..., Any]) -> None:
        self.launch = _guarded(launch)
        self.registered = torch.library.custom_op(
            f"peftx::{name}", self.launch, mutates_args=(), schema=schema
        )
        self.registered.register_fake(fake)

    def __call__(self, *arguments: Any) -> Any:
        return (self.registered if is_tracing() else self.launch)(*arguments)


def _guarded(launch: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(launch)
    def run(*arguments: Any, **options: Any) -> Any:
        with on_device(_first(arguments)):
            return launch(*arguments, **options)

    return run


def _first(arguments: Iterable[Any]) -> Tensor:
    """The first tensor, which may be in a list; all are on one device."""
    every = (one for given in arguments for one in (given if isinstance(given, list | tuple) else (given,)))
    return next(one for one in every if isinstance(one, Tensor))


def raw_op(name: str, schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], RawOp]:
    """Decorate a launcher.

    Args:
        name: ``peftx::NAME`` in torch's registry.
        schema: as `torch.library.custom_op` takes it. Outputs are new tensors that alias no input.
        fake: the launcher's signature on fake tensors; returns empty tensors of the shapes, types, devices and strides
            that the launcher returns.
    """

    def wrap(launch: Callable[..., Any]) -> RawOp:
        return RawOp(name, launch, schema, fake)

    return wrap
