"""Row lengths of W + s B A, measured once for one state of W, A and B.

Between two optimizer steps every micro-batch, and every forward pass that activation checkpointing repeats, asks for
the same lengths.
"""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from peftx_kernels import dora_norm, row_sq
from peftx_kernels.context import is_tracing

__all__ = ["RowLengths"]


class RowLengths:
    """``||W||^2`` and ``||W + s B A||`` of the rows, each kept until what it was made of changes.

    What is kept belongs to parameters in memory: copies and pickles of this object are empty. Noticed are writes in
    place (versions of tensors), tensors that are replaced or moved, and steps of optimizers, also of those that write
    through ``.data``, provided they are ``torch.optim.Optimizer``. Not noticed is any other write through ``.data``
    into the same memory: after one, call `forget`. Nothing is kept where a compiler traces, inside an optimizer's step,
    for a W that is trained, or for tensors that are not parameters (their memory may be used again); nor once a CUDA
    graph was recorded, whose replays change A and B unseen.
    """

    def __init__(self) -> None:
        self._squares: _Kept | None = None
        self._norms: _Kept | None = None
        self._recorded = False

    def __reduce__(self) -> tuple[type[RowLengths], tuple[()]]:
        return RowLengths, ()

    def forget(self) -> None:
        """Measure anew when asked next."""
        self._squares = self._norms = None

    def squares(self, matrix: Tensor) -> Tensor:  # (out, in) -> (out,)
        """Return ||W||^2 of every row, in float32 (float64 for float64)."""
        state = _state(matrix)
        if state is None:
            return row_sq(matrix)
        if self._squares is None or not self._squares.holds(state):
            with torch.inference_mode(False):
                self._squares = _Kept(state, row_sq(matrix))
        return self._squares.value

    def norms(self, matrix: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:  # (out,)
        """Return ||W + scale B A|| of every row, in float32 (float64 for float64), outside of autograd."""
        squares = self.squares(matrix)
        factors = a.to(matrix.device), b.to(matrix.device)
        state = _state(matrix, a, b, scale=scale)
        if not is_tracing() and _recording(matrix):
            self._recorded = True
        if state is None or self._recorded or _steps.inside:
            return dora_norm(squares, matrix, *factors, scale)
        if self._norms is None or not self._norms.holds(state):
            _watch_optimizers()
            # made outside of inference mode, so that a forward pass that trains can use it too
            with torch.inference_mode(False), torch.no_grad():
                self._norms = _Kept(state, dora_norm(squares, matrix, *factors, scale))
        return self._norms.value


@dataclass(frozen=True, slots=True)
class _State:
    """Who the tensors are, and what would differ if they had been written to."""

    owners: tuple[weakref.ref[Tensor], ...]
    stamps: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    state: _State
    value: Tensor

    def holds(self, state: _State) -> bool:
        own, other = self.state, state
        return own.stamps == other.stamps and all(
            one() is two() for one, two in zip(own.owners, other.owners, strict=True)
        )


def _state(matrix: Tensor, *factors: Tensor, scale: float | None = None) -> _State | None:
    """Return the state of a matrix, or of one with trained factors, or None where nothing may be kept."""
    if matrix.requires_grad or is_tracing() or _recording(matrix):
        return None
    owners: list[weakref.ref[Tensor]] = []
    # what one stream made, another would have to wait for
    stream = torch.cuda.current_stream(matrix.device).cuda_stream if matrix.is_cuda else 0
    stamps: list[Any] = [stream, scale, _steps.number if factors else 0]
    for tensor in (matrix, *factors):
        owner = tensor if tensor._base is None else tensor._base
        if not isinstance(owner, nn.Parameter) or owner.is_inference():
            return None
        owners.append(weakref.ref(owner))
        layout = (tensor.data_ptr(), tensor.shape, tensor.stride())
        stamps.append((*layout, tensor._version, tensor.dtype, tensor.device))
    return _State(tuple(owners), tuple(stamps))


def _recording(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


class _Steps:
    """Steps of all optimizers in this process so far, and whether one is under way.

    After a step that raised, one counts as under way until the next has ended: then nothing is kept.
    """

    number = 0
    inside = False


_steps = _Steps()


@functools.cache
def _watch_optimizers() -> None:
    def begin(*_: Any) -> None:
        _steps.inside = True

    def end(*_: Any) -> None:
        _steps.number += 1
        _steps.inside = False

    register_optimizer_step_pre_hook(begin)
    register_optimizer_step_post_hook(end)
