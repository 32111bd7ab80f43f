"""How every score is taken: eval mode, no gradients, a fixed batch size, samples in stored order.

The batch size is part of the protocol because matrix products of different heights may differ in their last
bits; it is recorded with the score, and `peftx eval` uses it again. Lives beside the task contract because
training validates and evaluation reports by this same function.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from peftx.tasks.contract import Scores, Task

__all__ = ["evaluate"]


class Where(Protocol):
    """The part of a training backend that scoring needs."""

    @property
    def device(self) -> torch.device: ...

    def autocast(self) -> AbstractContextManager[Any]: ...


class Bar(Protocol):
    """The part of a progress listener that scoring needs."""

    def begin(self, label: str, total: int) -> None: ...

    def advance(self) -> None: ...

    def end(self) -> None: ...


def evaluate(
    task: Task,
    model: nn.Module,
    split: str,
    batch_size: int,
    *,
    backend: Where | None = None,
    progress: Bar | None = None,
) -> Scores:
    """Score `model` on `split`; the training mode of each of its modules is put back afterwards.

    Without a `backend` the model is used where it is, in its own precision. The details of the scores come along.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    if progress is not None:
        progress.begin(f"evaluate {split}", len(task.batches(split, batch_size)))
    tick = progress.advance if progress is not None else None
    try:
        with torch.no_grad():
            if backend is None:
                found = task.evaluate(model, split, batch_size, device=_device(model), tick=tick)
            else:
                found = task.evaluate(
                    model, split, batch_size, device=backend.device, autocast=backend.autocast, tick=tick
                )
    finally:
        # module by module: parts of a frozen trunk may sit in eval mode while the rest trains
        for module, training in modes:
            module.training = training
        if progress is not None:
            progress.end()
    # a task of somebody else's may well give a plain dict
    return found if isinstance(found, Scores) else Scores(found)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
