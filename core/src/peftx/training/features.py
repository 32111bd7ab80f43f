"""Training the end of a model on cached features: what the frozen part makes of each sample, computed once.

With all trained parameters inside one module S that the model ends with, ``model(x) = S(f(x))`` and f is frozen. If
f(x) is the same in every epoch, a training on the rows of f(x) takes the very steps of the ordinary one. Nothing of
that is taken on trust: the model is looked at while it runs a batch, see `_Look`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from peftx.adapters import Adapted
from peftx.adapters.slot import BANK, SLOT
from peftx.config.run import TrainConfig
from peftx.errors import ConfigError
from peftx.tasks.contract import Batch, Batches, Task, batch_count
from peftx.tasks.features import FeatureTask
from peftx.training.backend import Backend
from peftx.training.untouched import untouched

__all__ = ["Cached", "cache_features", "trained_end"]


#: Samples that are looked at before features are cached, at least where there are so many, and how many rows are
#: compared for each length of a batch. A network may differ in the last digit of a value in a thousand (the activations
#: of an EfficientNet, where their number is no multiple of a processor's vector): what is rarer is not seen.
LOOKED, COMPARED = 64, 256


@dataclass(slots=True)
class Cached:
    """A training without its trunk.

    `task`: the task on features, for the splits that have them. `model`: the end of the model, which takes features
    where the model takes samples. `facts`: for the record; ``cached``, and where that is true the ``module`` that is
    trained, whether the training is ``exact`` (bit for bit that of the whole model, as far as was looked at), the
    ``bytes`` of the features and the ``seconds`` they took; else ``why`` not.
    """

    task: Task
    model: nn.Module
    facts: dict[str, Any] = field(default_factory=dict)


class _End(nn.Module):
    """The end of a model in the place of the whole."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.end = end

    def forward(self, features: Tensor) -> Any:
        return self.end(features)


class _Obstacle(Exception):
    """Why there can be no cache, as a clause."""


def trained_end(adapted: Adapted) -> str:
    """Return the name of the smallest module that holds everything trained; empty when only the whole model does."""
    paths: list[list[str]] = []
    for name, _ in adapted.named_parameters():
        parts = name.split(".")
        if parts[0] == BANK:
            return ""
        paths.append(parts[: parts.index(SLOT)])
    if not paths:
        return ""
    shared = paths[0]
    for path in paths[1:]:
        same = [a == b for a, b in zip(shared, path, strict=False)]
        shared = shared[: same.index(False) if False in same else len(same)]
    return ".".join(shared)


def cache_features(
    adapted: Adapted,
    task: Task,
    train: TrainConfig,
    backend: Backend,
    *,
    pause: Callable[[], None] = lambda: None,
    aside: Callable[[], AbstractContextManager[Any]] = nullcontext,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Cached | None, dict[str, Any]]:
    """Compute the features of the training and the validation split, if the task wants that and it changes nothing.

    Random numbers, training modes and running statistics are what they were.

    Args:
        adapted: the model, where it will be trained, bound to its optimizer.
        task: asked only if it is a `FeatureTask`.
        train: how it will be trained.
        backend: device and precision.
        pause: called between two batches; may raise to stop.
        aside: entered for batches of the size of an evaluation.
        note: told in one sentence why features are not cached, where the trained part alone would allow it.

    Returns:
        the training on features and the facts about it; None and why not, or nothing where nobody would expect it.

    Raises:
        ConfigError: the task's mode is "on", only the end is trained, and features cannot be cached.
    """
    if not isinstance(task, FeatureTask) or task.feature_cache.mode == "off":
        return None, {}
    path = trained_end(adapted)
    if not path:
        return None, {}
    started = time.perf_counter()
    try:
        made = _cache(adapted, task, train, backend, path, pause, aside)
    except _Obstacle as obstacle:
        if task.feature_cache.mode == "on":
            raise ConfigError(
                f"features of the frozen part cannot be cached, because {obstacle}: change that, or leave "
                "cache_features at auto"
            ) from None
        note(f"features of the frozen part are not cached: {obstacle}")
        return None, {"cached": False, "why": str(obstacle)}
    made.facts["seconds"] = time.perf_counter() - started
    return made, made.facts


def _cache(
    adapted: Adapted,
    task: FeatureTask,
    train: TrainConfig,
    backend: Backend,
    path: str,
    pause: Callable[[], None],
    aside: Callable[[], AbstractContextManager[Any]],
) -> Cached:
    if why := task.feature_obstacle():
        raise _Obstacle(why)
    if backend.processes > 1:
        raise _Obstacle("several processes train together")
    if adapted.shapes_loss:
        raise _Obstacle("the method has a say in the loss and looks at the whole model")
    if adapted.schedule_state():
        raise _Obstacle("the method changes the model over the course of training")
    whole = cast(Task, task)
    look = _Look(adapted.model, path, whole, backend)
    with untouched(adapted.model), torch.no_grad():
        exact = look.at(train.batch_size)
        if not exact and task.feature_cache.mode == "auto":
            raise _Obstacle(
                "they differ in their last digits with the batch they are computed in, and auto keeps every bit "
                "(cache_features on allows it)"
            )
        splits = ["train"] + (["val"] if "val" in whole.splits() else [])
        needed = look.row_bytes * sum(len(whole.data.splits[name]) for name in splits)
        if needed > task.feature_cache.mib * 2**20:
            raise _Obstacle(
                f"they take {needed / 2**20:,.0f} MiB and cache_features_mib allows {task.feature_cache.mib}"
            )
        found: dict[str, Tensor] = {}
        for name in splits:
            adapted.model.train(name == "train")
            size = train.batch_size if name == "train" else train.eval_batch_size
            with nullcontext() if name == "train" else aside():
                parts: list[Tensor] = []
                last: Batch | None = None
                for batch in whole.batches(name, size):
                    own = batch_count(batch)
                    if name == "train" and last is not None and own < size:
                        # in training no sample is always in the short batch: computed in the company of a full one
                        batch = {key: torch.cat([last[key], value])[-size:] for key, value in batch.items()}
                    parts.append(look.features(batch)[-own:].cpu())
                    last = batch
                    pause()
                found[name] = torch.cat(parts)
    facts = {"cached": True, "module": path, "exact": exact, "bytes": needed}
    return Cached(_on_features(whole, task, found), _End(look.end), facts)


def _on_features(whole: Task, task: FeatureTask, found: dict[str, Tensor]) -> Task:
    """The same task, with batches of features for the splits that have them."""

    def batches(
        split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> Batches:
        if split in found:
            return task.feature_batches(split, batch_size, found[split], train=train, generator=generator)
        return whole.batches(split, batch_size, train=train, generator=generator)

    view = copy.copy(whole)
    view.batches = batches  # type: ignore[method-assign]
    return view


class _Look:
    """Watches the end of a model while the task runs a batch through it.

    Raises `_Obstacle` where the end is not what the model ends with: called once, with one tensor that has a row for
    each sample, and its result is what the model returns.
    """

    def __init__(self, model: nn.Module, path: str, task: Task, backend: Backend) -> None:
        self.model, self.path, self.task, self.backend = model, path, task, backend
        self.end = model.get_submodule(path)
        self.row_bytes = 0

    def features(self, batch: Batch) -> Tensor:
        """Run a batch, and return what the end was given."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
        hook = self.end.register_forward_hook(
            lambda _module, given, named, output: calls.append((given, named, output)), with_kwargs=True
        )
        try:
            with self.backend.autocast():
                output = self.task.forward(self.model, self.backend.place(batch))
        finally:
            hook.remove()
        if len(calls) != 1:
            raise _Obstacle(f"{self.path} is called {len(calls)} times in a forward")
        given, named, made = calls[0]
        if made is not output:
            raise _Obstacle(f"the model goes on after {self.path}")
        if named or len(given) != 1 or not isinstance(given[0], Tensor) or not given[0].dim():
            raise _Obstacle(f"{self.path} takes more than one tensor")
        if len(given[0]) != batch_count(batch):
            raise _Obstacle(f"{self.path} is given {len(given[0])} rows for {batch_count(batch)} samples")
        return given[0]

    def at(self, size: int) -> bool:
        """Look at some batches of `size` in training mode; return whether their rows keep every bit in other batches.

        Raises:
            _Obstacle: the frozen part draws random numbers or moves its statistics, is not the same twice, or mixes
                the samples of a batch.
        """
        self.model.train()
        batches = self._some(size)
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        drawn = torch.get_rng_state()
        first = self.features(batches[0])
        if any(not torch.equal(buffer, before) for buffer, before in buffers):
            raise _Obstacle("the frozen part moves its statistics in training")
        second = self.features(batches[0])
        if not torch.equal(drawn, torch.get_rng_state()) or not torch.equal(first, second):
            raise _Obstacle("the frozen part is not the same twice in training (dropout, drop path)")
        self.row_bytes = first.element_size() * math.prod(first.shape[1:])
        found = torch.cat([first, *(self.features(batch) for batch in batches[1:])])
        pool = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        # in other company and other places, in batches of every length there is in training
        exact, draws = True, torch.Generator().manual_seed(0)
        scale = float(found.float().abs().mean())
        tolerance = (1e-4 if found.dtype == torch.float32 else 3e-2) * scale
        for length in self._lengths(size):
            for _ in range(0, COMPARED, length):
                rows = torch.randperm(max(length, len(found)), generator=draws)[:length] % len(found)
                again = self.features({name: value[rows] for name, value in pool.items()})
                mine = found[rows.to(found.device)]
                exact = exact and torch.equal(again, mine)
                if not torch.allclose(again.float(), mine.float(), rtol=1e-3, atol=tolerance):
                    raise _Obstacle("what the frozen part makes of a sample depends on the batch it is in")
        return exact

    def _some(self, size: int) -> list[Batch]:
        """The first full batches, of at least `LOOKED` samples together where there are so many."""
        found: list[Batch] = []
        for batch in self.task.batches("train", size):
            if found and batch_count(batch) < size:
                break
            found.append(batch)
            if sum(batch_count(one) for one in found) >= LOOKED:
                break
        return found

    def _lengths(self, size: int) -> list[int]:
        """Lengths of the batches of an epoch."""
        task = cast(FeatureTask, self.task)
        nothing, draws = torch.empty(len(self.task.data.splits["train"]), 0), torch.Generator().manual_seed(0)
        passing = task.feature_batches("train", size, nothing, train=True, generator=draws)
        return sorted({batch_count(batch) for batch in passing})
