"""One row of a result table: a fresh model, one method, the shared loop, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from peftx import artifacts
from peftx.adapters.explanation import Counts
from peftx.config.run import RunConfig, TrainConfig
from peftx.errors import ArtifactError, RunError, TrainingError
from peftx.runs import folder as files
from peftx.runs.calibrating import calibrate, keep_calibration
from peftx.runs.exhibits import exhibit, keep_samples
from peftx.runs.ledger import Ledger
from peftx.runs.looks import Looks
from peftx.runs.planning import Row
from peftx.runs.subject import base_of, counts_of, fitted, make
from peftx.tasks.contract import Task
from peftx.tasks.scoring import evaluate
from peftx.training.backend import Backend
from peftx.training.checkpoint import Checkpoint
from peftx.training.engine import fit
from peftx.training.memory import PeakMemory
from peftx.training.progress import Interruptible, Progress
from peftx.training.stopping import Stop

__all__ = ["rehearse", "space_needed", "train_row"]


def train_row(
    row: Row,
    task: Task,
    config: RunConfig,
    *,
    ledger: Ledger,
    backend: Backend,
    progress: Progress,
    stop: Stop,
    announce: Callable[[dict[str, Any]], None],
    keep: bool,
) -> dict[str, Any]:
    """Train a row's method on a fresh model, or go on with it, and return its figures, JSON-ready.

    Streams of random numbers are restarted for the model, the adapter and the data order, so every row begins
    with the same base and head, and sees the same batches. `keep`: save the adapter to the run's folder.

    Raises:
        TrainingError: training stopped itself, or the device has too little memory for it.
        RunError: something cannot be written, or a checkpoint is damaged.
        Interrupted: a stop was asked for.
    """
    name, train, seed = row.method.name, row.train, config.seed
    folder = ledger.folder / files.CHECKPOINT / name
    checkpoint = Checkpoint(folder, train.checkpoint)
    former = {"peak": 0}

    def log(values: dict[str, Any]) -> None:
        ledger.log({"row": name, **values})
        announce(values)

    def scored(split: str, to: Progress | None = None) -> Mapping[str, float]:
        # several processes score to the end: they must leave together
        alone = backend.processes == 1
        bar = Interruptible(stop, to) if alone else to
        return backend.agree(
            evaluate(task, model, split, train.eval_batch_size, backend=backend, progress=bar)
        )

    def resumed(extra: Mapping[str, Any]) -> None:
        ledger.cut(extra["logged"])
        former["peak"] = extra["peak"]
        looks.go_on(extra.get("looks", ()))
        progress.note(f"{name} goes on from its checkpoint")

    looks = Looks(
        lambda: scored("test"), lambda epoch, metrics: log({"event": "look", "epoch": epoch, **metrics})
    )
    tested = config.test and "test" in task.splits()
    if not (folder / "state.json").is_file():
        ledger.cut_to_rows()
    with _files_told(folder), _memory_told(name, train, backend), PeakMemory(backend.device) as memory:
        subject = make(row, task, seed)
        model, adapted = subject.model, subject.adapted
        if adapted is not None:
            task.notes += [f"{name}: {text}" for text in adapted.explain().notes]
        if adapted is None or not row.method.spec.trained:
            done = fitted(row, task, subject, backend.device)
        else:
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
                look=looks if tested else None,
                look_always=config.best_on_test,
                checkpoint=checkpoint,
                extra=lambda: {
                    "logged": ledger.logged(),
                    "peak": max(former["peak"], memory.peak),
                    "looks": looks.state(),
                },
                resumed=resumed,
                stop=stop,
            )
    scores: dict[str, Mapping[str, float]] = {}
    for split in ("val", "test") if config.test else ("val",):
        if split in task.splits():
            scores[split] = scored(split, progress)
            log({"event": "evaluated", "split": split, "step": done.steps, **scores[split]})
    counts = subject.counts()
    merges = adapted is not None and row.method.spec.kind == "adapter" and adapted.merges
    if keep and ledger.writes and adapted is not None:
        artifacts.save(adapted, ledger.folder / files.ADAPTER)
    ledger.add_details(name, scores)
    if keep and config.report and ledger.writes:  # cells of a bench have no pages, and few predict
        task.calibration = calibrate(task, model, list(scores), backend, task.notes.append)
        keep_calibration(ledger.folder, task.calibration)
        keep_samples(ledger.folder, name, exhibit(task, model, scores, backend, task.notes.append))
    figures = {
        "method": name,
        "options": row.config.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "trainable": counts.trainable,
        "counts": asdict(counts),
        "merges": merges,
        "stored_bytes": counts.stored_bytes,
        "resident_bytes": subject.resident_bytes,
        "peak_memory_bytes": max(former["peak"], memory.bytes),
        "peak_memory_how": memory.how,
        "seconds": done.seconds,
        "steps": done.steps,
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "selected_on": done.selected_on,
        "stopped_early": done.stopped_early,
        "train_loss": done.train_loss,
        "history": done.history,
        "metrics": scores,
    }
    if done.features:
        figures["features"] = done.features
    if tested:
        figures["last_epoch"] = looks.last_epoch(done.epochs, done.best_epoch, scores["test"])
        if config.best_on_test:
            figures["best_on_test"] = looks.best_on_test(task.primary, higher_is_better=task.higher_is_better)
    if config.efficiency and backend.processes == 1 and adapted is not None and row.method.spec.trained:
        from peftx.runs import efficiency

        progress.stage(f"measuring {name}")
        # the last thing that is done with this model: it may be used up
        figures["efficiency"] = efficiency.measure(
            adapted, task, train, backend, optimizer_bytes=done.optimizer_bytes, note=progress.note
        )
    return figures


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


@contextmanager
def _files_told(folder: object) -> Iterator[None]:
    """A checkpoint that cannot be written or read is a fault of the run's folder, not of the method."""
    try:
        yield
    except ArtifactError as error:
        raise RunError(f"{error} (the checkpoint is in {folder}; without it this row starts anew)") from error


def rehearse(rows: Sequence[Row], task: Task, backend: Backend) -> int:
    """Refuse methods that find nothing to adapt in the task's model, warm the process up, and return the bytes the run
    will need on its disk.

    Comes before the run folder is made, so that a mistyped target leaves no half run behind. The step of the bare
    model keeps what the process does once (libraries read lazily, thread pools, scratch buffers) out of the first row's
    memory on a CPU.

    Raises:
        SelectionError, ConfigError, AdapterError: the first row's method does not fit the model.
    """
    base = task.build_model() if any(row.method.spec.kind == "adapter" for row in rows) else None
    needed = []
    for index, row in enumerate(rows):
        try:
            counts = counts_of(row.method, row.config, task, base)
        except Exception:
            if index == 0:
                raise
            continue  # a baseline that does not fit will be a row that says so
        needed.append(space_needed(counts, row.train))
    if backend.device.type == "cpu":
        model = base if base is not None else base_of(rows[0].method, rows[0].config, task, 0)
        batch = next(iter(task.batches("train", min(rows[0].train.batch_size, 8))))
        with backend.autocast():
            loss = task.loss(model.train(), backend.place(batch))
        if loss.requires_grad:
            backend.backward(loss)
        # the first optimizer of a process imports torch's compiler: 150 MiB that are nobody's
        value = torch.nn.Parameter(torch.zeros(1))
        value.grad = torch.zeros(1)
        torch.optim.AdamW([value]).step()
    return max(needed)


def space_needed(counts: Counts, train: TrainConfig) -> int:
    """Bytes a row takes at most: its adapter, and two checkpoints while one replaces the other."""
    moments = 2 * 4 * counts.trainable
    average = 4 * counts.trainable if train.ema is not None else 0
    # the adapter as it is, and at its best epoch; both as trained, whatever form the folder holds
    state = max(counts.stored_bytes, 4 * counts.trainable) * 2 + moments + average
    return counts.stored_bytes + 2 * state + 2**20
