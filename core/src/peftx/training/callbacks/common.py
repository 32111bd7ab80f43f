"""What every trainer's callback does: find the adapters, bind them, go on from a state, write them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from peftx.adapters import Adapted
from peftx.adapters.host import root_board
from peftx.artifacts import save
from peftx.errors import AdapterError

__all__ = [
    "adapted_in",
    "begin",
    "has_schedule",
    "moments_of",
    "restore",
    "same",
    "save_adapters",
    "values_of",
]

#: adapter -> site -> slot -> tensor
Values = dict[str, dict[str, dict[str, torch.Tensor]]]


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


def begin(adapted: Adapted, optimizer: Any, total_steps: int | None, state: Mapping[str, Any] | None) -> None:
    """Bind, and go on from a state: ``schedules``, and ``adapters`` where the trainer did not restore them.

    Parameters and optimizer are restored by then, and a schedule that starts may change them, so they are put back.
    """
    if state is None:
        adapted.bind(optimizer, total_steps)
        return
    values = state.get("adapters") or values_of(adapted)
    moments = copy.deepcopy(optimizer.state_dict())
    adapted.bind(optimizer, total_steps)
    restore(adapted, values)
    optimizer.load_state_dict(moments)
    if has_schedule(adapted):
        adapted.load_schedule_state(state["schedules"])


def values_of(adapted: Adapted) -> Values:
    """Copies of every adapter's tensors."""
    found: Values = {name: {} for name in adapted.names}
    for name in adapted.names:
        for (site, slot), value in adapted.tensors(name).items():
            found[name].setdefault(site, {})[slot] = value.detach().clone()
    return found


def restore(adapted: Adapted, values: Values) -> None:
    """Put values back.

    Raises:
        AdapterError: they are of other adapters, or of other shapes.
    """
    flat = {(name, *key): value for name in adapted.names for key, value in adapted.tensors(name).items()}
    given = _flat(values)
    if flat.keys() != given.keys():
        odd = min(flat.keys() ^ given.keys())
        raise AdapterError(
            f"training goes on with other adapters than it began with: {' '.join(odd)} is not in both; attach the same"
        )
    with torch.no_grad():
        for key, value in flat.items():
            if value.shape != given[key].shape:
                raise AdapterError(
                    f"{' '.join(key)} has the shape {tuple(value.shape)} where {tuple(given[key].shape)} was saved; a "
                    "training whose shapes change goes on in a bare loop"
                )
            value.copy_(given[key])


def same(adapted: Adapted, values: Values) -> bool:
    """Whether the adapters have these very values."""
    here, given = _flat(values_of(adapted)), _flat(values)
    return here.keys() == given.keys() and all(torch.equal(here[key].cpu(), given[key].cpu()) for key in here)


def moments_of(optimizer: Any) -> str:
    """SHA-256 of an optimizer's tensors, empty when it has none: tells the checkpoints of one training apart."""
    digest = hashlib.sha256()
    found = 0
    for index, state in optimizer.state_dict()["state"].items():
        for name, entry in state.items():
            if isinstance(entry, torch.Tensor):
                found += 1
                digest.update(f"{index} {name} {tuple(entry.shape)}".encode())
                digest.update(
                    entry.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
    return digest.hexdigest() if found else ""


def save_adapters(adapted: Adapted, folder: Path) -> None:
    """Write every attached adapter to ``folder/NAME``, as `peftx.artifacts.save` does."""
    for name in adapted.names:
        save(adapted, folder / name, name=name)


def _flat(values: Values) -> dict[tuple[str, str, str], torch.Tensor]:
    return {
        (name, site, slot): value
        for name, sites in values.items()
        for site, slots in sites.items()
        for slot, value in slots.items()
    }
