"""Laws of training: who gets a gradient, what stays as it was, what a seed and a stored state promise."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from peftx.adapters.handle import Adapted
from peftx.adapters.slot import is_reserved
from peftx.errors import AdapterError
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.trial import STEPS, Trial, near, refused

__all__ = ["base_untouched", "deterministic", "gradients", "resume", "unbound"]


@law("method", each_case=True)
def gradients(trial: Trial) -> None:
    """Every trained tensor gets a gradient, not zero within `wakes_within` steps, and no frozen one gets any."""
    model = trial.build()
    base = dict(model.named_parameters())
    adapted = trial.attach(model)
    optimizer = trial.bind(adapted)
    model.train()
    asleep: set[tuple[str, str]] = set()
    within = trial.method.wakes_within
    for step in range(1, within + 1):
        optimizer.zero_grad()
        trial.backward(model)
        trained = {place: t for place, t in adapted.tensors().items() if t.requires_grad}
        if step == 1:
            demand(trained, "nothing is trained")
            asleep = set(trained)
        for (site, slot), tensor in trained.items():
            demand(
                tensor.grad is not None, f"{slot} at {site} got no gradient in step {step} (None, not zero)"
            )
            assert tensor.grad is not None
            demand(
                torch.isfinite(tensor.grad).all(),
                f"the gradient of {slot} at {site} is not finite in step {step}",
            )
            if tensor.grad.any():
                asleep.discard((site, slot))
        for key, parameter in base.items():
            demand(parameter.grad is None, f"the frozen parameter {key} got a gradient in step {step}")
        optimizer.step()
    asleep = {(site, slot) for site, slot in asleep if not trial.inert(site)}
    if asleep:
        site, slot = min(asleep)
        raise LawError(
            f"the gradient of {slot} at {site} was zero in all of the first {within} steps ({len(asleep)} such tensors)"
        )


@law("method", each_case=True)
def base_untouched(trial: Trial) -> None:
    """Training never writes to the base: parameters, buffers and their objects."""
    model = trial.build()
    before = {key: (id(value), value.clone()) for key, value in _base(model).items()}
    adapted = trial.attach(model)
    optimizer = trial.bind(adapted)
    for train in (True, False):
        model.train(train)
        for _ in range(2):
            trial.step(model, optimizer)
    after = _base(model)
    demand(list(after) == list(before), "the base's state-dict keys changed while the adapter was attached")
    for key, (identity, value) in before.items():
        demand(torch.equal(after[key], value), f"training changed the base's {key}")
        demand(id(after[key]) == identity, f"training put another tensor in the place of the base's {key}")


def _base(model: torch.nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = dict(model.state_dict(keep_vars=True))
    return {key: value for key, value in state.items() if not is_reserved(key)}


@law("method", each_case=True)
def deterministic(trial: Trial) -> None:
    """The same seed gives the same adapter, bit for bit."""
    found = []
    for _ in range(2):
        model = trial.build()
        adapted = trial.attach(model)
        tensors = {place: tensor.detach().clone() for place, tensor in adapted.tensors().items()}
        found.append((tensors, trial.run(model).detach()))
    (first, y), (second, z) = found
    demand(first.keys() == second.keys(), "two attachments have different tensors")
    for (site, slot), tensor in first.items():
        demand(
            torch.equal(tensor, second[site, slot]), f"{slot} at {site} starts differently from the same seed"
        )
    demand(torch.equal(y, z), "the outputs of two attachments from one seed differ")


def _train(trial: Trial, adapted: Adapted, optimizer: Any, steps: int) -> None:
    adapted.model.train()
    for _ in range(steps):
        trial.step(adapted.model, optimizer)


def _states(adapted: Adapted, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    states = {
        "model": adapted.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedules": adapted.schedule_state(),
    }
    return copy.deepcopy(states)


@law("method", each_case=True)
def resume(trial: Trial) -> None:
    """Training resumed from its stored states goes on bit for bit."""
    whole = trial.attach(trial.build())
    optimizer = trial.bind(whole)
    half = STEPS // 2
    _train(trial, whole, optimizer, half)
    states = _states(whole, optimizer)
    _train(trial, whole, optimizer, half)

    again = trial.attach(trial.build())
    other = trial.bind(again)
    try:
        again.model.load_state_dict(states["model"])
    except RuntimeError as error:
        raise NotApplicable(f"the adapter changed its shape by then: {str(error).splitlines()[-1]}") from None
    other.load_state_dict(states["optimizer"])
    again.load_schedule_state(states["schedules"])
    _train(trial, again, other, half)
    wanted = whole.tensors()
    for (site, slot), tensor in again.tensors().items():
        demand(
            torch.equal(tensor, wanted[site, slot]),
            f"{slot} at {site} differs between training in one go and training stopped after {half} of {STEPS} steps",
        )
    near(trial.run(again.model), trial.run(whole.model), 0.0, "the outputs after resuming and in one go")


@law("method", each_case=True)
def unbound(trial: Trial) -> None:
    """Training a method with a schedule is refused until it is bound to an optimizer."""
    if not trial.scheduled:
        raise NotApplicable("the method has no schedule")
    model = trial.build()
    adapted = trial.attach(model)
    model.train()
    said = refused(AdapterError, "a training forward before bind", lambda: trial.run(model))
    demand("bind" in said, f"the refusal does not say what to do: {said}")
    model.eval()
    trial.run(model)
    trial.bind(adapted)
    model.train()
    trial.run(model)
