"""The training loop. One loop for every method, so that the rows of a table differ in the method and nothing
else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftx.errors import ConfigError, TrainingError
from peftx.tasks.contract import Batch, Task, batch_count, in_context
from peftx.tasks.scoring import evaluate
from peftx.training.backend import Backend
from peftx.training.progress import Progress
from peftx.training.schedule import learning_rate_factor
from peftx.training.seeds import generator, seed_all

if TYPE_CHECKING:
    from peftx.adapters import Adapted
    from peftx.config.run import TrainConfig

__all__ = ["Fit", "fit"]

#: A run is validated about this many times; selection needs a few looks, not one per epoch of a long run.
VALIDATIONS = 10


@dataclass(slots=True)
class Fit:
    """What training did: `best_epoch` counts from 1; `history` holds the validation metrics by epoch."""

    steps: int = 0
    epochs: int = 0
    best_epoch: int = 0
    selected_on: str = ""
    seconds: float = 0.0
    train_loss: float = math.nan
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    adapted: Adapted,
    task: Task,
    train: TrainConfig,
    *,
    seed: int = 0,
    backend: Backend | None = None,
    progress: Progress | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    aside: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Fit:
    """Train what `adapted` trains and leave it at its best validation epoch (at the last one without a val
    split); among the epochs at whose end its schedule has settled, or the last.

    AdamW over `adapted.param_groups`; linear warm-up and cosine by optimizer step; the mean loss of a group
    of `accumulate` batches is the mean over its samples, whatever their sizes.
    `aside` is entered around each validation, for a caller that measures the training alone.

    Raises:
        ConfigError: no learning rate is set.
        TrainingError: the loss became NaN or infinite, or an adapted site is never reached by the model.
    """
    if train.lr is None:
        raise ConfigError("no learning rate: set --train.lr (this task has no recipe for the method)")
    backend = backend or Backend()
    progress = progress or Progress()
    model = adapted.model
    model.to(backend.device)
    optimizer = torch.optim.AdamW(
        adapted.param_groups(lr=train.lr, head_lr=train.head_lr, weight_decay=train.weight_decay), lr=train.lr
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    order = generator(seed, "order")
    batches = task.batches("train", train.batch_size, train=True, generator=order)
    per_epoch = math.ceil(len(batches) / train.accumulate)
    total = per_epoch * train.epochs
    adapted.bind(optimizer, total_steps=total)
    wrapped, stepper = backend.prepare(model, optimizer)
    _check_effect(adapted, task, train, backend)

    every = max(1, math.ceil(train.epochs / VALIDATIONS))
    validates = "val" in task.splits()
    best = _Best(task)
    result = Fit(selected_on="val" if validates else "last epoch")
    seed_all(seed, "train")
    started = time.perf_counter()
    progress.begin("train", total)
    for epoch in range(1, train.epochs + 1):
        model.train()
        losses = 0.0
        for group in _groups(batches, train.accumulate):
            factor = learning_rate_factor(result.steps, total, train.warmup, train.schedule)
            for settings, peak in zip(optimizer.param_groups, peaks, strict=True):
                settings["lr"] = peak * factor
            loss = _accumulate(wrapped, adapted.model, task, group, backend)
            result.steps += 1
            if not math.isfinite(loss):
                raise TrainingError(_not_finite(loss, result.steps, total, epoch, train))
            if train.clip is not None:
                backend.clip(adapted.parameters(), train.clip)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
            losses += loss
            metrics = {"loss": loss, "lr": optimizer.param_groups[0]["lr"]}
            progress.advance(metrics)
            if on_step is not None:
                on_step(result.steps, metrics)
        result.epochs, result.train_loss = epoch, losses / per_epoch
        line: dict[str, float] = {"train_loss": result.train_loss}
        if validates and (epoch % every == 0 or epoch == train.epochs):
            with aside():
                scores = evaluate(task, model, "val", train.eval_batch_size, backend=backend)
            if not math.isfinite(scores.get("loss", 0.0)):
                raise TrainingError(_not_finite(scores["loss"], result.steps, total, epoch, train))
            result.history.append({"epoch": epoch, **scores})
            # an adapter that is still being pruned or grown is not the one that was asked for
            if adapted.settled or epoch == train.epochs:
                best.see(adapted, epoch, scores)
            line |= {f"val_{name}": value for name, value in scores.items()}
        if on_epoch is not None:
            on_epoch(epoch, line)
    result.best_epoch = best.restore(adapted) or train.epochs
    model.eval()
    result.seconds = time.perf_counter() - started
    progress.end()
    return result


def _groups(batches: Any, size: int) -> Iterator[list[Batch]]:
    """Batches in groups of `size`; the last group of an epoch may be shorter."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _accumulate(
    model: torch.nn.Module, own: torch.nn.Module, task: Task, group: list[Batch], backend: Backend
) -> float:
    """Back-propagate the mean loss over all samples of the group and return it. `own` is `model` unwrapped."""
    samples = sum(batch_count(batch) for batch in group)
    mean = 0.0
    for index, batch in enumerate(group):
        share = batch_count(batch) / samples

        def backward(batch: Batch = batch, share: float = share) -> float:
            batch = backend.place(batch)
            with in_context(task, own, batch):
                with backend.autocast():
                    loss: Tensor = task.loss(model, batch)
                backend.backward(loss * share if share != 1.0 else loss)
            return loss.item() * share

        if index + 1 < len(group) and backend.processes > 1:
            with backend.no_sync(model):
                mean += backward()
        else:
            mean += backward()
    return mean


class _Best:
    """Copy of what is trained, at the best validation so far; ties go to the lower loss, then to the earlier
    epoch.

    Buffers are copied too: full tuning moves batch-norm statistics.
    """

    def __init__(self, task: Task) -> None:
        self._sign = 1.0 if task.higher_is_better else -1.0
        self._primary = task.primary
        self._score: tuple[float, float] | None = None
        self._epoch = 0
        self._tensors: list[Tensor] = []

    def see(self, adapted: Adapted, epoch: int, scores: dict[str, float]) -> None:
        score = (self._sign * scores[self._primary], -scores.get("loss", 0.0))
        if self._score is None or score > self._score:
            self._score, self._epoch = score, epoch
            live = _live(adapted)
            if not self._tensors:
                self._tensors = [tensor.detach().clone() for tensor in live]
            for kept, tensor in zip(self._tensors, live, strict=True):
                kept.copy_(tensor.detach())

    def restore(self, adapted: Adapted) -> int:
        """Put the best values back and return their epoch, 0 when nothing was ever validated."""
        with torch.no_grad():
            for kept, tensor in zip(self._tensors, _live(adapted) if self._tensors else [], strict=True):
                tensor.copy_(kept)
        return self._epoch


def _live(adapted: Adapted) -> list[Tensor]:
    return [*adapted.parameters(), *adapted.model.buffers()]


def _check_effect(adapted: Adapted, task: Task, train: TrainConfig, backend: Backend) -> None:
    """Refuse to train adapters the model never calls: they would look trained and do nothing."""
    batch = next(iter(task.batches("train", min(train.batch_size, 2))))
    model = adapted.model
    was_training = model.training
    model.eval()

    def forward() -> None:
        placed = backend.place(batch)
        with torch.no_grad(), backend.autocast(), in_context(task, model, placed):
            task.forward(model, placed)

    missed = list(adapted.reached(forward))
    model.train(was_training)
    if missed:
        more = f" and {len(missed) - 3} more" if missed[3:] else ""
        raise TrainingError(
            f"the model never uses adapted site(s) {', '.join(missed[:3])}{more}: training them would have no "
            "effect; leave them out with --method.exclude, or choose other --method.targets"
        )


def _not_finite(loss: float, step: int, total: int, epoch: int, train: TrainConfig) -> str:
    hints = [f"a lower --train.lr (it is {train.lr:g})"]
    if train.clip is None:
        hints.append("--train.clip 1.0")
    if train.warmup < 0.1:
        hints.append("--train.warmup 0.1")
    return f"the loss became {loss} at step {step} of {total} (epoch {epoch}): try {', or '.join(hints)}"
