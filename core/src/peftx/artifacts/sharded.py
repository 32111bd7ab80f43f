"""Tensors of which every process holds a part (FSDP2): gathered before they are written, by one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["whole", "writes"]


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or what its parts in all processes make together; then all of them must call this."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def writes(model: nn.Module) -> bool:
    """Whether this process writes: of a model whose parameters lie in parts in several processes, the first alone."""
    if not any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        return True
    return not torch.distributed.is_available() or dist.get_rank() == 0
