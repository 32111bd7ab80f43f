"""Times: medians over repeats in which the variants take turns, on inputs that are not in the cache."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

__all__ = ["Times", "interleaved", "sets_of", "step"]

_MOST = 64


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the repeats."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return median(self.seconds)

    def over(self, other: Times) -> float:
        """The median of the ratios to another variant's time in the same repeat."""
        return median(one / two for one, two in zip(self.seconds, other.seconds, strict=True))

    @property
    def spread(self) -> tuple[float, float]:
        """The fastest and the slowest."""
        return min(self.seconds), max(self.seconds)


def sets_of(bytes_of_one: int, cache: int) -> int:
    """How many sets of inputs are used in turn, so that three caches of others lie between two uses of one."""
    return max(2, min(_MOST, math.ceil(3 * cache / max(bytes_of_one, 1)) + 1))


def step(run: Callable[..., Tensor], tensors: Mapping[str, Tensor], cotangent: Tensor | None) -> Any:
    """One forward without gradients; or, with a cotangent, forward and backward for all that require one."""
    if cotangent is None:
        with torch.no_grad():
            return run(**tensors)
    wanted = [tensor for tensor in tensors.values() if tensor.requires_grad]
    return torch.autograd.grad(run(**tensors), wanted, cotangent)


def interleaved(
    variants: Mapping[str, Sequence[Callable[[], Any]]], device: torch.device, repeats: int, warm: int = 3
) -> dict[str, Times]:
    """Time every variant `repeats` times, each time on its next set of inputs, after some calls that do not count.

    On a GPU by events, all waited for at the end; on a CPU by the time of this process.
    """
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in variants}
    for turn in range(-warm, repeats):
        for name in variants if turn % 2 else reversed(list(variants)):
            calls = variants[name]
            begin = _mark(device)
            calls[turn % len(calls)]()
            if turn >= 0:
                marks[name].append((begin, _mark(device)))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return {
            name: Times(tuple(begin.elapsed_time(end) / 1e3 for begin, end in pairs))
            for name, pairs in marks.items()
        }
    return {name: Times(tuple(end - begin for begin, end in pairs)) for name, pairs in marks.items()}


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.process_time()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
