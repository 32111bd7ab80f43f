"""The tensors a training moves: what is copied for the best epoch, averaged, and written to a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peftx.adapters import Adapted
from peftx.errors import DivergedError

__all__ = ["check_finite", "live", "statistics"]


def live(adapted: Adapted) -> dict[str, Tensor]:
    """What is trained, and the buffers that travel with it (full tuning moves batch-norm statistics). Not copies."""
    found: dict[str, Tensor] = dict(adapted.named_parameters())
    return found | {f"buffer {name}": buffer for name, buffer in adapted.model.named_buffers()}


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """The model's persistent buffers by name; those that are made from a seed or a shape are left out."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def check_finite(adapted: Adapted, step: int) -> None:
    """Refuse to go on with, or to keep, values that are no numbers.

    Raises:
        DivergedError: a trained tensor holds NaN or infinity.
    """
    for name, parameter in adapted.named_parameters():
        if not bool(torch.isfinite(parameter.detach()).all()):
            raise DivergedError(f"after step {step} the trained tensor {name} holds NaN or infinite values")
