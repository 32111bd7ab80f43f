"""A training as data: what a checkpoint holds, and how a fresh one is put into that state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from peftx.adapters import Adapted
from peftx.errors import ArtifactError
from peftx.training.live import statistics
from peftx.training.seeds import random_state, set_random_state

if TYPE_CHECKING:
    from peftx.training.engine import Training

__all__ = ["capture", "prepare_shapes", "restore"]


def capture(training: Training) -> dict[str, Any]:
    """Everything the rest of the training depends on."""
    adapted, result = training.adapted, training.result
    tensors: dict[str, dict[str, Any]] = {}
    for (site, slot), tensor in adapted.tensors().items():
        tensors.setdefault(site, {})[slot] = tensor
    return {
        "length": training.total,
        "steps": result.steps,
        "epochs": result.epochs,
        "train_loss": result.train_loss,
        "stopped_early": result.stopped_early,
        "history": result.history,
        "waited": training.waited,
        "seconds": training.seconds,
        "groups": training.groups,
        "losses": training.losses,
        "order": training.order_state,
        "random": training.backend.gathered(random_state()),
        "adapter": tensors,
        "statistics": statistics(adapted.model),
        "optimizer": training.optimizer.state_dict(),
        "schedules": adapted.schedule_state(),
        "scaler": training.backend.scaler_state(),
        "best": training.best.state_dict(),
        "ema": training.ema.state_dict() if training.ema is not None else {},
        "extra": training.extra(),
    }


def prepare_shapes(adapted: Adapted, saved: Mapping[str, Any]) -> None:
    """Give elastic parameters the shapes they had; before the optimizer is built.

    Raises:
        ArtifactError: the state is of another adapter.
    """
    name = adapted.attachment().name
    wanted = {(site, slot): t for site, slots in saved["adapter"].items() for slot, t in slots.items()}
    here = adapted.tensors()
    if here.keys() != wanted.keys():
        odd = min(here.keys() ^ wanted.keys())
        raise ArtifactError(
            f"the checkpoint is of another adapter: {' '.join(odd)} is not in both; start the run anew"
        )
    for (site, slot), tensor in here.items():
        shape = tuple(wanted[site, slot].shape)
        if tuple(tensor.shape) != shape and not adapted.fit(name, site, slot, shape):
            raise ArtifactError(
                f"the checkpoint is of another adapter: {site} {slot} has shape {tuple(tensor.shape)} here and {shape} "
                "there; start the run anew"
            )


def restore(training: Training, saved: Mapping[str, Any]) -> None:
    """Put a training that was started (optimizer built and bound) where the saved one stood.

    Raises:
        ArtifactError: the state is of a training of another length.
    """
    if saved["length"] != training.total:
        raise ArtifactError(
            f"the checkpoint is of a training of {saved['length']} steps, this one has {training.total}; start it anew"
        )
    adapted, result, device = training.adapted, training.result, training.backend.device
    with torch.no_grad():  # a schedule that starts may have changed values: they come after `bind`
        for (site, slot), tensor in adapted.tensors().items():
            tensor.copy_(saved["adapter"][site][slot])
        for name, buffer in statistics(adapted.model).items():
            buffer.copy_(saved["statistics"][name])
    training.optimizer.load_state_dict(saved["optimizer"])
    adapted.load_schedule_state(saved["schedules"])
    training.backend.load_scaler_state(saved["scaler"])
    training.best.load_state_dict(saved["best"], device)
    if training.ema is not None:
        training.ema.load_state_dict(saved["ema"], device)
    result.steps, result.epochs = saved["steps"], saved["epochs"]
    result.train_loss, result.stopped_early = saved["train_loss"], saved["stopped_early"]
    result.history = saved["history"]
    training.waited, training.groups, training.losses = saved["waited"], saved["groups"], saved["losses"]
    training.order_state = saved["order"]
    states, rank = saved["random"], training.backend.rank
    if rank < len(states):
        set_random_state(states[rank])
