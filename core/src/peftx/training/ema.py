"""An exponential moving average of what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from peftx.adapters import Adapted

__all__ = ["Ema"]


class Ema:
    """``average = d average + (1 - d) value`` after each optimizer step, of every trained tensor, in float32 at least.

    ``d = min(decay, (1 + t) / (10 + t))`` at step t, so that a short training is not held back by where it started
    (as TensorFlow's ExponentialMovingAverage does with `num_updates`). A parameter that a schedule gave another shape
    starts its average anew. Buffers are not averaged.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, adapted: Adapted, step: int) -> None:
        """Take in the values after optimizer step `step` (from 1)."""
        weight = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        before, self._average = self._average, {}
        for name, parameter in adapted.named_parameters():
            average = before.get(name)
            value = parameter.detach()
            if average is None or average.shape != value.shape:
                self._average[name] = value.to(_wide(value), copy=True)
            else:
                self._average[name] = average.lerp_(value.to(average.dtype), weight)

    @torch.no_grad()
    def apply(self, adapted: Adapted) -> None:
        """Put the averages in the place of the values, for good."""
        for name, parameter in adapted.named_parameters():
            average = self._average.get(name)
            if average is not None and average.shape == parameter.shape:
                parameter.copy_(average)

    @contextmanager
    def applied(self, adapted: Adapted) -> Iterator[None]:
        """Inside the block the averages stand in the place of the values."""
        values = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
        try:
            self.apply(adapted)
            yield
        finally:
            with torch.no_grad():
                for name, parameter in adapted.named_parameters():
                    parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """The averages, for a checkpoint."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a checkpoint."""
        self._average = {name: tensor.to(device) for name, tensor in state.items()}


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)
