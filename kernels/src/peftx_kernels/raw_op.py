"""How a launch of Triton kernels becomes an operation that torch knows.

A launcher is a plain function from tensors to new tensors. In eager mode it is called as it is, because every layer of
dispatch costs as much as a small kernel. Where a compiler or fake tensors trace, the same function is called as a
``torch.library`` operation, which the tracer takes as one opaque step; what it would fuse is fused already. Autograd is
not part of it: each op has a ``torch.autograd.Function`` whose two passes call raw ops.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from peftx_kernels.context import is_tracing

__all__ = ["RawOp", "raw_op"]

# later releases of Triton change the default, and with it the last bits of every kernel
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


class RawOp:
    """One launcher: called directly in eager mode, as ``torch.ops.peftx.NAME`` while a compiler traces."""

    def __init__(self, name: str, launch: Callable[..., Any], schema: str, fake: Callable[..., Any]) -> None:
        self.launch = launch
        self.registered = torch.library.custom_op(f"peftx::{name}", launch, mutates_args=(), schema=schema)
        self.registered.register_fake(fake)

    def __call__(self, *arguments: Any) -> Any:
        return (self.registered if is_tracing() else self.launch)(*arguments)


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
