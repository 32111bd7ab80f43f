"""The one file that touches Hugging Face Accelerate: device, mixed precision, gradient scaling, processes.

The model is wrapped only when there are several processes. On one process it stays the caller's own object,
because Accelerate's wrapping replaces `forward` on the instance and would follow it into deep copies and
saved state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from peftx.errors import ConfigError

__all__ = ["Backend"]

_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


class Backend:
    """Where and in what precision tensors live.

    `device`: auto, cpu, cuda, cuda:N or mps. `precision`: fp32, bf16 or fp16 (autocast; parameters stay as
    they are).

    Raises:
        ConfigError: the device is not there, or cannot do that precision.
    """

    def __init__(self, device: str = "auto", precision: str = "fp32") -> None:
        _check(device, precision)
        if device.startswith("cuda:"):
            torch.cuda.set_device(torch.device(device))
        # Accelerate keeps its state in a process-wide singleton and refuses a second precision; ours are
        # successive.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self._accelerator = Accelerator(mixed_precision=_PRECISION[precision], cpu=device == "cpu")
        self.precision = precision
        self.device: torch.device = self._accelerator.device
        if self.device.type == "cpu" and precision == "fp16":
            raise ConfigError("--precision fp16 needs a GPU, but this run is on the CPU; use bf16 or fp32")

    @property
    def processes(self) -> int:
        """Number of processes that train together."""
        return int(self._accelerator.num_processes)

    @property
    def rank(self) -> int:
        """Which of the processes this is; 0 writes and prints."""
        return int(self._accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """Return the first process's `value` in all of them."""
        if self.processes == 1:
            return value
        held = [value]
        broadcast_object_list(held)
        return held[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return every process's `value`, in all of them."""
        return [value] if self.processes == 1 else list(gather_object([value]))

    def total(self, *values: float) -> list[float]:
        """Return the sums of numbers over the processes."""
        if self.processes == 1:
            return list(values)
        summed = self._accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self._exact), "sum"
        )
        return [float(value) for value in summed]

    @property
    def _exact(self) -> torch.device:
        # Apple's GPUs have no float64
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def scaler_state(self) -> dict[str, Any]:
        """The state of the gradient scaler, empty without one."""
        scaler = self._accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        scaler = self._accelerator.scaler
        if scaler is not None and state:
            scaler.load_state_dict(state)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap the optimizer, and the model when there are several processes. The model is on the device
        already."""
        if self.processes > 1:
            model = self._accelerator.prepare_model(model)
        return model, self._accelerator.prepare_optimizer(optimizer)

    def place(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch on the device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        return nullcontext() if self.precision == "fp32" else self._accelerator.autocast()

    def backward(self, loss: Tensor) -> None:
        """Back-propagate, scaled under fp16."""
        self._accelerator.backward(loss)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Context of a backward pass whose gradients are not yet averaged over processes."""
        return self._accelerator.no_sync(model)

    def clip(self, parameters: Iterable[nn.Parameter], norm: float) -> float:
        """Clip the global gradient norm, after unscaling under fp16, and return what it was."""
        found = self._accelerator.clip_grad_norm_(list(parameters), norm)
        return math.nan if found is None else float(found)


def _check(device: str, precision: str) -> None:
    if precision not in _PRECISION:
        raise ConfigError(f"--precision {precision}: expected one of {', '.join(_PRECISION)}")
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found <= int(index or 0):
            raise ConfigError(
                f"--device {device}: this machine shows {found} CUDA devices; use --device cpu or auto"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: not available on this machine; use --device cpu or auto")
