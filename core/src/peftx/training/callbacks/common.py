"""What every trainer's callback does: find the adapters, bind them, go on from a state, write them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftx.adapters import Adapted
from peftx.adapters.host import root_board
from peftx.artifacts import save
from peftx.errors import AdapterError

__all__ = ["adapted_in", "begin", "has_schedule", "save_adapters", "values_of"]


def adapted_in(module: Any) -> Adapted:
    """The one adapted model in a trainer's module.

    Raises:
        AdapterError: there is none, or more than one.
    """
    found = [part for part in module.modules() if root_board(part) is not None]
    if len(found) != 1:
        raise AdapterError(
            f"{type(module).__name__} holds {len(found) or 'no'} adapted models; "
            + (
                "give the callback the one to bind"
                if found
                else "call peftx.attach before the training begins"
            )
        )
    return Adapted(found[0])


def has_schedule(adapted: Adapted) -> bool:
    """Whether an adapter that is trained now changes over the course of training."""
    board = root_board(adapted.model)
    return board is not None and any(any(True for _ in adapted.parameters(name)) for name in board.schedules)


def begin(
    adapted: Adapted,
    optimizer: Any,
    total_steps: int | None,
    find: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Bind, and go on from the state of the schedules that `find` gives.

    The trainer has restored parameters and optimizer by then, and a schedule that starts may change them, so they are
    put back as they were.
    """
    if find is None or not has_schedule(adapted):
        adapted.bind(optimizer, total_steps)
        return
    state = find()
    values = {key: value.detach().clone() for key, value in _tensors(adapted).items()}
    moments = copy.deepcopy(optimizer.state_dict())
    adapted.bind(optimizer, total_steps)
    with torch.no_grad():
        for key, value in _tensors(adapted).items():
            if value.shape != values[key].shape:
                name, site, slot = key
                raise AdapterError(
                    f"the schedule of {name!r} gives {slot} of {site} the shape {tuple(value.shape)} where "
                    f"{tuple(values[key].shape)} was restored; a training whose shapes change goes on in a bare loop"
                )
            value.copy_(values[key])
    optimizer.load_state_dict(moments)
    adapted.load_schedule_state(state)


def values_of(adapted: Adapted) -> str:
    """SHA-256 of every adapter's tensors: whether a state was taken at these very values."""
    digest = hashlib.sha256()
    for key, value in sorted(_tensors(adapted).items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_adapters(adapted: Adapted, folder: Path) -> None:
    """Write every attached adapter to ``folder/NAME``, as `peftx.artifacts.save` does."""
    for name in adapted.names:
        save(adapted, folder / name, name=name)


def _tensors(adapted: Adapted) -> dict[tuple[str, str, str], Any]:
    found: dict[tuple[str, str, str], nn.Parameter | torch.Tensor] = {}
    for name in adapted.names:
        found |= {(name, site, slot): value for (site, slot), value in adapted.tensors(name).items()}
    return found
