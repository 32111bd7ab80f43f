"""What one training step costs: losses (to compare), bytes kept for the backward pass, operator calls, CPU time."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from peer.models import CLASSES

__all__ = ["calls", "data", "kept_mib", "losses", "paired_times"]

_VIEWS = frozenset(
    "view _unsafe_view t transpose permute slice select split unbind expand alias detach as_strided unsqueeze "
    "squeeze _reshape_alias view_as".split()
)


def data(batch: int) -> tuple[Tensor, Tensor]:
    """Return one random batch of images and labels, always the same."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(batch, 3, 224, 224, generator=generator)
    return images, torch.randint(0, CLASSES, (batch,), generator=generator)


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def losses(model: nn.Module, batch: tuple[Tensor, Tensor], steps: int = 5) -> list[float]:
    """Return the losses of AdamW steps on one batch."""
    optimizer, found = _optimizer(model), []
    for _ in range(steps):
        loss = _loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def kept_mib(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Return MiB kept for the backward pass: each storage once, parameters and buffers left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    holders: weakref.WeakSet[_Holder] = weakref.WeakSet()

    def pack(t: Tensor) -> _Holder:
        # detached: a kept output that knew its own node would keep the whole graph alive for ever
        holder = _Holder(t.detach())
        holders.add(holder)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        loss = _loss(model, batch)
    # only what the graph still holds: a part of it that was detached and dropped on the way keeps nothing
    storages = [holder.tensor.untyped_storage() for holder in holders]
    total = sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in own}.values()) / 2**20
    del loss
    return total


class _Holder:
    """Stands for one kept tensor in the graph, and goes with it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.work = self.views = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _VIEWS:
            self.views += 1
        else:
            self.work += 1
        return func(*args, **(kwargs or {}))


def calls(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[int, int]:
    """Return ATen calls of one forward and backward pass: those that compute, and those that only make views."""
    _loss(model, batch).backward()  # gradients exist from here on, and per-weight caches are full
    with _Counter() as counter:
        _loss(model, batch).backward()
    model.zero_grad()
    return counter.work, counter.views


def paired_times(
    models: Sequence[nn.Module], batch: tuple[Tensor, Tensor], repeats: int
) -> list[list[float]]:
    """Return process CPU seconds of whole steps, a list a model; the order is reversed in every other repeat.

    Entry i of every list is from the same repeat, so ratios between models are formed pair by pair.
    """
    optimizers = [_optimizer(model) for model in models]
    times: list[list[float]] = [[] for _ in models]
    order = list(range(len(models)))
    for repeat in range(-1, repeats):  # the first is a warm-up
        for index in order if repeat % 2 else reversed(order):
            start = time.process_time()
            _loss(models[index], batch).backward()
            optimizers[index].step()
            optimizers[index].zero_grad()
            if repeat >= 0:
                times[index].append(time.process_time() - start)
    return times
