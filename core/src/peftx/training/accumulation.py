"""Gradients of one optimizer step: a group of batches, shared among the processes that train together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from peftx.adapters import adapted
from peftx.adapters.host import root_board
from peftx.errors import TrainingError
from peftx.tasks.contract import Batch, Task, batch_count, in_context
from peftx.training.backend import Backend

__all__ = ["accumulate", "groups_of", "training_loss"]


def groups_of(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in groups of `size`; the last group of an epoch may be shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def accumulate(model: nn.Module, own: nn.Module, task: Task, group: list[Batch], backend: Backend) -> float:
    """Back-propagate the mean loss over all samples of the group and return it. `own` is `model` unwrapped.

    With P processes each takes its P-th part of every batch, so the gradient, averaged over the processes, is that of
    one process which has the whole batch.
    """
    samples = sum(batch_count(batch) for batch in group)
    mean = 0.0
    for index, batch in enumerate(group):
        part, count = _part(batch, backend.rank, backend.processes)
        share = count / samples

        def backward(part: Batch = part, share: float = share) -> float:
            part = backend.place(part)
            weight = share * backend.processes  # gradients are averaged over the processes, not summed
            with in_context(task, own, part):
                with backend.autocast():
                    loss = training_loss(task, model, own, part)
                backend.backward(loss * weight if weight != 1.0 else loss)
            return loss.item() * share

        if index + 1 < len(group) and backend.processes > 1:
            with backend.no_sync(model):
                mean += backward()
        else:
            mean += backward()
    return backend.total(mean)[0]


def training_loss(task: Task, model: nn.Module, own: nn.Module, batch: Batch) -> Tensor:
    """The task's mean loss over the batch, as the trained adapters' methods shape it. `own` is `model` unwrapped."""
    if root_board(own) is None or not (handle := adapted(own)).shapes_loss:
        return task.loss(model, batch)

    def run() -> tuple[Tensor, Any]:
        outputs: list[Any] = []
        hook = own.register_forward_hook(lambda _module, _args, output: outputs.append(output))
        try:
            loss = task.loss(model, batch)
        finally:
            hook.remove()
        if not outputs:
            raise TrainingError(
                f"the method looks at what the model returns, and the loss of {type(task).__name__} called parts "
                "of the model only; call the model itself in Task.loss, or train another method"
            )
        return loss, outputs[-1]

    return handle.loss(run)


def _part(batch: Batch, rank: int, processes: int) -> tuple[Batch, int]:
    """The rows of a batch that are this process's, and how many they are."""
    if processes == 1:
        return batch, batch_count(batch)
    count = batch_count(batch)
    start, stop = rank * count // processes, (rank + 1) * count // processes
    # a process without a sample computes one all the same, with no weight: the others wait for its gradient
    rows = slice(start, stop) if stop > start else slice(0, 1)
    return {name: value[rows] for name, value in batch.items()}, stop - start
