"""The parts of the pack that need torch."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, ClassVar

from torch import Tensor, nn
from toypack_task import Sorting as ToySorting

from peftx.adapters.methods.lora import LoRA, LoRADelta


class Sorting(ToySorting):
    """The toy task; every loss takes `pause` seconds more."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        time.sleep(self.config.pause)
        return super().loss(model, batch)


class DeadlyDelta(LoRADelta):
    """Kills the process in its eleventh training forward, unless SPARED says otherwise."""

    def forward(self, x: Tensor, base: Any) -> Tensor:
        self.calls = getattr(self, "calls", 0) + self.training
        if self.calls > 10 and "SPARED" not in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, base)


class Deadly(LoRA):
    """`grid.deadly`."""

    Delta: ClassVar[type[LoRADelta]] = DeadlyDelta


class Raising(LoRA):
    """`grid.raising`."""

    def check(self, plan: Any, config: Any) -> None:
        raise ValueError("no luck today")
