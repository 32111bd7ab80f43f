"""Recompute an op's input in the backward pass from what the node before it already keeps.

In ``fc2(gelu(h))`` the GELU node keeps ``h`` and the adapter on fc2 keeps ``x = gelu(h)``: at ViT-B that second copy is
a quarter of everything kept for the backward pass. ``activation_source(x)`` recognises the node that made ``x``; an op
given this source keeps no ``x`` and asks the node for ``h`` when its own backward runs, which is always before the
node's. Reading the node then, and not in the forward pass, leaves ``h`` to whatever saved-tensor hooks are active:
offloading moves it once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels.context import is_checkpointing

__all__ = ["ActivationSource", "activation_source"]

_KINDS = {"GeluBackward0": "gelu", "SiluBackward0": "silu", "MulBackward0": "product"}


class ActivationSource:
    """How to rebuild one activation: ``kind`` is gelu, silu, or product (a gate times its value)."""

    __slots__ = ("_node", "kind", "shape")

    def __init__(self, node: Any, kind: str, shape: torch.Size) -> None:
        self._node = node
        self.kind = kind
        self.shape = shape

    @torch.no_grad()
    def recompute(self) -> Tensor:
        """Return the activation again, bit for bit; only before the backward of the node that made it."""
        if self.kind == "gelu":
            return F.gelu(self._node._saved_self, approximate=self._node._saved_approximate)
        if self.kind == "silu":
            return F.silu(self._node._saved_self)
        return self._node._saved_self * self._node._saved_other


def activation_source(x: Tensor) -> ActivationSource | None:
    """Return how ``x`` can be recomputed, or None where it has to be kept.

    None when x was not made by a GELU, a SiLU, or a product of two tensors that both take gradients; when it was
    changed in place since; under ``torch.compile``, which plans its own recomputation; and under activation
    checkpointing, which hands out every kept tensor once only.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or is_checkpointing():
        return None
    node = x.grad_fn
    kind = _KINDS.get(type(node).__name__)
    if kind is None or x._version != 0:
        return None
    # A product keeps an operand only when the other one takes a gradient; asking for the raw record unpacks nothing.
    if kind == "product" and not _both_kept(node):
        return None
    return ActivationSource(node, kind, x.shape)


def _both_kept(node: Any) -> bool:
    return all(edge is not None for edge, _ in node.next_functions) and len(node.next_functions) == 2
