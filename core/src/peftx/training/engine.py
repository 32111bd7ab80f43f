"""The training loop. One loop for every method, so that the rows of a table differ in the method and nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from peftx.errors import ConfigError, DivergedError, Interrupted, TrainingError
from peftx.tasks.contract import Task, in_context
from peftx.tasks.scoring import evaluate
from peftx.training.accumulation import accumulate, groups_of
from peftx.training.backend import Backend
from peftx.training.best import Best
from peftx.training.capture import capture, prepare_shapes, restore
from peftx.training.checkpoint import Checkpoint
from peftx.training.ema import Ema
from peftx.training.features import cache_features
from peftx.training.live import check_finite
from peftx.training.memory import optimizer_bytes
from peftx.training.progress import Interruptible, Progress
from peftx.training.schedule import learning_rate_factor
from peftx.training.seeds import generator, random_state, seed_all, set_random_state
from peftx.training.stopping import Stop

if TYPE_CHECKING:
    from peftx.adapters import Adapted
    from peftx.config.run import TrainConfig

__all__ = ["Fit", "Training", "fit"]

#: A run is validated about this many times; selection needs a few looks, not one per epoch of a long run.
VALIDATIONS = 10


@dataclass(slots=True)
class Fit:
    """What training did: `best_epoch` counts from 1; `history` holds the validation metrics by epoch.

    `optimizer_bytes`: what the optimizer keeps beside the parameters at the end. `features`: whether they were cached,
    see `peftx.training.features`; empty where that could not be expected.
    """

    steps: int = 0
    epochs: int = 0
    best_epoch: int = 0
    selected_on: str = ""
    seconds: float = 0.0
    train_loss: float = math.nan
    stopped_early: bool = False
    optimizer_bytes: int = 0
    features: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def fit(adapted: Adapted, task: Task, train: TrainConfig, **options: Any) -> Fit:
    """Train what `adapted` trains and leave it at its best validation epoch (at the last one without a val split);
    among the epochs at whose end its schedule has settled, or the last. See `Training` for the options and errors."""
    return Training(adapted, task, train, **options).run()


class Training:
    """One training, which can be stopped between any two steps and gone on with.

    AdamW over `adapted.param_groups`; linear warm-up and cosine by optimizer step; the mean loss of a group of
    `accumulate` batches is the mean over its samples, whatever their sizes, and however many processes share them.

    Args:
        adapted: the model with its adapter.
        task: batches, loss, scores.
        train: settings; the learning rate must be set.
        seed: of data order and of the global generators.
        backend: device, precision, processes.
        progress, on_step, on_epoch: listeners. They hear of steps again that are repeated after a restart.
        aside: entered around validations and checkpoints, for a caller that measures the training alone.
        look: called with an epoch's number while the model is as that epoch left it (its averages, with `ema`), for
            figures beside the training: generators of random numbers and the training's own time stay what they were.
            Called once, for the last epoch, where an earlier one is kept; an epoch may be told twice after a restart.
        look_always: look at every epoch, before its validation.
        checkpoint: where the state is written, and gone on from when there is one.
        extra: what the caller wants kept in the checkpoint; `resumed` is called with it when training goes on.
        stop: a wish to stop.

    Raises:
        ConfigError: no learning rate is set.
        DivergedError: the loss or what is trained became NaN or infinite.
        TrainingError: an adapted site is never reached.
        Interrupted: a stop was asked for; the checkpoint, if there is one, is written.
        ArtifactError: a checkpoint cannot be written, or read.
    """

    def __init__(
        self,
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
        look: Callable[[int], None] | None = None,
        look_always: bool = False,
        checkpoint: Checkpoint | None = None,
        extra: Callable[[], dict[str, Any]] = dict,
        resumed: Callable[[Mapping[str, Any]], None] | None = None,
        stop: Stop | None = None,
    ) -> None:
        if train.lr is None:
            raise ConfigError("no learning rate: set --train.lr (this task has no recipe for the method)")
        self.adapted, self.task, self.train, self.seed = adapted, task, train, seed
        self.backend = backend or Backend()
        self.progress = progress or Progress()
        self.on_step, self.on_epoch, self.aside = on_step, on_epoch, aside
        self.look, self.look_always = look, look_always
        self.checkpoint, self.extra, self.resumed = checkpoint, extra, resumed
        self.stop = stop or Stop()
        # what a step and a validation run: the task and its model, or their ends on cached features
        self.running, self.scored = task, adapted.model
        self.validates = "val" in task.splits()
        self.result = Fit(selected_on="val" if self.validates else "last epoch")
        metric, higher = task.decides("val")
        self.best = Best(metric, higher_is_better=higher)
        self.ema = Ema(train.ema) if train.ema is not None else None
        self.order = generator(seed, "order")
        self.batches = task.batches("train", train.batch_size, train=True, generator=self.order)
        self.per_epoch = math.ceil(len(self.batches) / train.accumulate)
        self.total = self.per_epoch * train.epochs
        # the place inside the epoch under way
        self.groups = 0
        self.losses = 0.0
        self.order_state = self.order.get_state()
        self.waited = 0  # validations without a better one
        self._before = 0.0  # seconds of earlier processes
        self._aside = 0.0  # seconds spent on checkpoints and looks
        self._started = time.perf_counter()

    def run(self) -> Fit:
        """Train to the end, or go on to it."""
        self._start()
        train, result = self.train, self.result
        self.progress.begin("train", self.total)
        for _ in range(result.steps):
            self.progress.advance()
        while result.epochs < train.epochs and not result.stopped_early:
            self._epoch()
        if self.checkpoint is not None:
            self._write()  # scoring may be stopped as well
        if self.best.epoch not in (0, result.epochs):
            self._look(result.epochs)
        if self.ema is not None and not self.best.epoch:
            self.ema.apply(self.adapted)
        result.best_epoch = self.best.restore(self.adapted) or result.epochs
        result.optimizer_bytes = optimizer_bytes(self.optimizer)
        self.adapted.model.eval()
        result.seconds = self.seconds
        self.progress.end()
        return result

    @property
    def seconds(self) -> float:
        """Time spent training and validating, in all processes that took part one after the other."""
        return self._before + time.perf_counter() - self._started - self._aside

    # --- before the first step ------------------------------------------------------------------------------
    def _start(self) -> None:
        adapted, train, backend = self.adapted, self.train, self.backend
        saved = self.checkpoint.read() if self.checkpoint is not None else None
        adapted.model.to(backend.device)
        if saved is not None:
            prepare_shapes(adapted, saved)
        assert train.lr is not None
        self.optimizer = torch.optim.AdamW(
            adapted.param_groups(lr=train.lr, head_lr=train.head_lr, weight_decay=train.weight_decay),
            lr=train.lr,
        )
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        adapted.bind(self.optimizer, total_steps=self.total)
        self.wrapped, self.stepper = backend.prepare(adapted.model, self.optimizer)
        if saved is None:
            _check_effect(adapted, self.task, train, backend)
            seed_all(self.seed, "train" if backend.is_main else f"train on process {backend.rank}")
        else:
            restore(self, saved)
            self._before = saved["seconds"]
            if self.resumed is not None:
                self.resumed(saved["extra"])
        self._started = time.perf_counter()
        self._cache()

    def _cache(self) -> None:
        """Train on cached features from here on, where that is the same training."""
        made, self.result.features = cache_features(
            self.adapted,
            self.task,
            self.train,
            self.backend,
            pause=self._pause,
            aside=self.aside,
            note=self.progress.note,
        )
        if made is not None:
            self.wrapped, self.scored, self.running = made.model, made.model, made.task
            self.batches = made.task.batches("train", self.train.batch_size, train=True, generator=self.order)

    # --- one epoch ------------------------------------------------------------------------------------------
    def _epoch(self) -> None:
        result, train = self.result, self.train
        self.adapted.model.train()
        self.order.set_state(self.order_state)
        seen, before = self.groups, random_state() if self.groups else {}
        for index, group in enumerate(groups_of(self.batches, train.accumulate)):
            if index >= seen:
                self._step(group)
            elif index + 1 == seen:
                # these were trained on before the restart; a task that draws from the global generators, too, has just
                # done so again
                set_random_state(before)
        result.train_loss = self.losses / self.per_epoch
        line: dict[str, float] = {"step": result.steps, "train_loss": result.train_loss}
        epoch = result.epochs + 1
        every = max(1, math.ceil(train.epochs / VALIDATIONS))
        if self.look_always:
            self._look(epoch)
        if self.validates and (epoch % every == 0 or epoch == train.epochs):
            line |= {f"val_{name}": value for name, value in self._validate(epoch).items()}
        result.epochs = epoch
        self.groups, self.losses, self.order_state = 0, 0.0, self.order.get_state()
        if self.on_epoch is not None:
            self.on_epoch(epoch, line)
        self._pause()

    def _step(self, group: list[Any]) -> None:
        result, train = self.result, self.train
        factor = learning_rate_factor(result.steps, self.total, train.warmup, train.schedule)
        for settings, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            settings["lr"] = peak * factor
        loss = accumulate(self.wrapped, self.adapted.model, self.running, group, self.backend)
        step = result.steps + 1
        if not math.isfinite(loss):
            raise DivergedError(self._not_finite(loss, step))
        metrics = {"loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}
        if train.clip is not None:
            metrics["grad_norm"] = self.backend.clip(self.adapted.parameters(), train.clip)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.adapted, step)
        result.steps, self.groups, self.losses = step, self.groups + 1, self.losses + loss
        self.progress.advance(metrics)
        if self.on_step is not None:
            self.on_step(step, metrics)
        if self.groups < self.per_epoch:  # the last step of an epoch is followed by its validation
            self._pause()

    # --- looking and validating -----------------------------------------------------------------------------
    def _look(self, epoch: int) -> None:
        """Let the caller see the model as `epoch` left it."""
        if self.look is None:
            return
        before, started = random_state(), time.perf_counter()
        try:
            with self.aside(), self.ema.applied(self.adapted) if self.ema else nullcontext():
                self.look(epoch)
        except Interrupted:
            set_random_state(before)
            self._pause()  # nothing of what was seen is kept: it will be looked at again
            raise
        set_random_state(before)
        self._aside += time.perf_counter() - started

    def _validate(self, epoch: int) -> Mapping[str, float]:
        adapted, train, result = self.adapted, self.train, self.result
        before = random_state()
        try:
            with self.aside(), self.ema.applied(adapted) if self.ema else nullcontext():
                # several processes score to the end: they must leave together
                bar = Interruptible(self.stop) if self.backend.processes == 1 else None
                scores = self.backend.agree(
                    evaluate(
                        self.running,
                        self.scored,
                        "val",
                        train.eval_batch_size,
                        backend=self.backend,
                        progress=bar,
                    )
                )
                if not math.isfinite(scores.get("loss", 0.0)):
                    raise DivergedError(self._not_finite(scores["loss"], result.steps))
                # an adapter that is still being pruned or grown is not the one that was asked for
                ready = adapted.settled or epoch == train.epochs
                better = ready and self.best.see(adapted, epoch, scores)
        except Interrupted:
            set_random_state(before)  # the validation will be made again
            self._pause()
            raise
        result.history.append({"epoch": epoch, **scores})
        if ready:
            self.waited = 0 if better else self.waited + 1
            result.stopped_early = train.patience is not None and self.waited >= train.patience
        return scores

    # --- stopping and going on ------------------------------------------------------------------------------
    def _pause(self) -> None:
        """Write a checkpoint when it is time to, and stop when that was asked for."""
        due = self.checkpoint is not None and self.backend.is_main and self.checkpoint.due()
        asked, due = (bool(n) for n in self.backend.total(self.stop.requested, due))
        if self.checkpoint is not None and (asked or due):
            self._write()
        if asked:
            self.progress.end()
            raise Interrupted(f"stopped after step {self.result.steps} of {self.total}")

    def _write(self) -> None:
        assert self.checkpoint is not None
        started = time.perf_counter()
        with self.aside():
            check_finite(self.adapted, self.result.steps)
            state = capture(self)
            if self.backend.is_main:
                self.checkpoint.write(state, self.result.steps)
        self._aside += time.perf_counter() - started

    def _not_finite(self, loss: float, step: int) -> str:
        train = self.train
        hints = [f"a lower --train.lr (it is {train.lr:g})"]
        if train.clip is None:
            hints.append("--train.clip 1.0")
        if train.warmup < 0.1:
            hints.append("--train.warmup 0.1")
        place = f"step {step} of {self.total} (epoch {self.result.epochs + 1})"
        good = ""
        if self.checkpoint is not None and self.checkpoint.step:
            good = f"; the last good checkpoint is that of step {self.checkpoint.step}"
        return f"the loss became {loss} at {place}: try {', or '.join(hints)}{good}"


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
