"""One row of a result table: a fresh model, one method, the shared loop, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from peftx.adapters import Adapted, attach
from peftx.adapters.attachment import plan_of, refuse_model, resolve_method
from peftx.config.run import TrainConfig
from peftx.errors import TrainingError
from peftx.plugins.descriptors import MethodSpec
from peftx.plugins.registry import Entry
from peftx.tasks.contract import Task
from peftx.tasks.scoring import evaluate
from peftx.training.backend import Backend
from peftx.training.engine import fit
from peftx.training.memory import PeakMemory
from peftx.training.progress import Progress
from peftx.training.seeds import seed_all

__all__ = ["rehearse", "train_row"]

Log = Callable[[dict[str, Any]], None]


def train_row(
    method: Entry[MethodSpec],
    method_config: Any,
    task: Task,
    train: TrainConfig,
    *,
    seed: int,
    backend: Backend,
    progress: Progress,
    log: Log,
) -> tuple[Adapted, dict[str, Any]]:
    """Train `method` on a fresh model; return the adapted model and the row, JSON-ready.

    Streams of random numbers are restarted for the model, the adapter and the data order, so every row begins
    with the same base and head, and sees the same batches. `log` gets one dict per step, epoch and
    evaluation.

    Raises:
        TrainingError: training stopped itself, or the device has too little memory for it.
    """
    with _memory_told(method.name, train, backend), PeakMemory(backend.device) as memory:
        seed_all(seed, "model")
        model = task.build_model()
        seed_all(seed, "adapter")
        adapted = attach(model, method.name, config=method_config)
        done = fit(
            adapted,
            task,
            train,
            seed=seed,
            backend=backend,
            progress=progress,
            on_step=lambda step, metrics: log({"event": "step", "step": step, **metrics}),
            on_epoch=lambda epoch, metrics: log({"event": "epoch", "epoch": epoch, **metrics}),
            aside=memory.paused,  # large evaluation batches would hide what training needs
        )
    scores = {}
    for split in ("val", "test"):
        if split in task.splits():
            scores[split] = evaluate(
                task, model, split, train.eval_batch_size, backend=backend, progress=progress
            )
            log({"event": "evaluated", "split": split, **scores[split]})
    counts = adapted.counts()
    return adapted, {
        "method": method.name,
        "options": method_config.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "trainable": counts.trainable,
        "counts": asdict(counts),
        "stored_bytes": counts.stored_bytes,
        "peak_memory_bytes": memory.bytes,
        "peak_memory_how": memory.how,
        "seconds": done.seconds,
        "steps": done.steps,
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "selected_on": done.selected_on,
        "train_loss": done.train_loss,
        "history": done.history,
        "metrics": scores,
    }


@contextmanager
def _memory_told(method: str, train: TrainConfig, backend: Backend) -> Iterator[None]:
    """Say in one sentence what to change when a device is too small: no bug, and the next row may fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"training {method} does not fit into the memory of {backend.device}: try half of --train.batch-size (it "
            f"is {train.batch_size}) with twice --train.accumulate (it is {train.accumulate}), or a smaller "
            f"--train.eval-batch-size (it is {train.eval_batch_size})"
        ) from error


def rehearse(
    method: Entry[MethodSpec], method_config: Any, task: Task, backend: Backend, batch_size: int
) -> None:
    """Refuse a method that finds nothing to adapt in the task's model, and warm the process up.

    Comes before the run folder is made, so that a mistyped target neither leaves half a run behind nor replaces a
    finished one. The step of the bare model keeps what the process does once (libraries read lazily, thread pools,
    scratch buffers) out of the first row's memory on a CPU.

    Raises:
        SelectionError, ConfigError, AdapterError: the method does not fit the model.
    """
    model = task.build_model()
    name, instance, config = resolve_method(method.name, method_config, {})
    refuse_model(model)
    plan_of(model, name, instance, config)
    if backend.device.type != "cpu":
        return
    batch = next(iter(task.batches("train", min(batch_size, 8))))
    with backend.autocast():
        loss = task.loss(model.train(), backend.place(batch))
    backend.backward(loss)
