"""Forwards beside a training that leave no trace on the model and its training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from peftx.adapters.host import root_board
from peftx.training.seeds import random_state, set_random_state

__all__ = ["untouched"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back afterwards what a forward moves, without a step: random numbers, training modes, running statistics and
    the state of adapters. Gradients are the caller's to leave alone."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not buffer.is_inference()  # those cannot be moved outside of inference mode
    ]
    # which selections wait for their backward, and which frozen parts are held in evaluation mode
    board = root_board(model)
    state = {} if board is None else {name: _shallow(value) for name, value in vars(board).items()}
    random = random_state()
    try:
        yield
    finally:
        set_random_state(random)
        for module, name, buffer, values in buffers:
            module._buffers[name] = buffer
            # through .data: another forward may have kept the buffer for a backward that is still to come, and finds
            # what it kept
            buffer.data.copy_(values)
        # module by module: parts of a frozen trunk may be in evaluation mode while the rest trains
        for module, training in modes:
            module.training = training
        if board is not None:
            vars(board).update(state)


def _shallow(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, list | set) else value
