"""`Schedule`: what of an adapter changes with time, and the `Binding` that lets an optimizer drive it.

Time is counted in optimizer steps, nothing else: not in forwards (validation, accumulation and activation checkpointing
add some), not in epochs (they have no fixed length). Hooks of the optimizer itself call a schedule, so it runs in
anybody's loop.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from peftx.adapters.store import ParamStore
from peftx.errors import AdapterError

if TYPE_CHECKING:
    from peftx.adapters.delta import Delta

__all__ = ["Binding", "Schedule", "innermost"]


class Schedule:
    """The time-dependent behaviour of one adapter: budgets, masks, growth, annealing.

    A subclass keeps its own state and touches parameters through the store only. It holds nothing of the model before
    `start`; it is made anew, unbound, when a model is copied.

    Order of one optimizer step: gradients are complete, `before_step`, parameters move, `after_step`, gradients are
    cleared by the loop. A step that a gradient scaler skips calls neither. Of an optimizer that computes the gradients
    itself, through a closure, `before_step` follows the first call of it.
    """

    #: steps done; kept, saved and restored for every schedule
    step: int = 0

    def start(self, deltas: Mapping[str, Delta], store: ParamStore, total_steps: int) -> None:
        """Training begins: the method's live deltas by site key (not the heads and other parameters the adapter owns
        whole), the store of all its parameters, the number of steps to come."""
        self.deltas, self.store, self.total_steps = deltas, store, total_steps

    def before_step(self, step: int) -> None:
        """The gradients of step `step` (from 1) are complete, the parameters have not moved."""

    def after_step(self, step: int) -> None:
        """The parameters have moved; the gradients of step `step` are still there."""

    @property
    def settled(self) -> bool:
        """Whether only values change from now on. The choice of the best epoch waits for this, so that an adapter
        is never stored in a form it was only passing through."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a restart: tensors, numbers, strings, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; called after `start`."""


@dataclass(slots=True)
class _Bound:
    schedule: Schedule
    total_steps: int
    step: int = 0
    #: of the optimizer step under way: idle, waiting for the gradients of a closure, moving
    phase: str = "idle"


@dataclass(slots=True)
class Binding:
    """The schedules that run, by adapter name, and the optimizer hooks that drive them."""

    running: dict[str, _Bound] = field(default_factory=dict)
    _hooks: dict[str, list[Any]] = field(default_factory=dict)
    _watched: weakref.WeakSet[Optimizer] = field(default_factory=weakref.WeakSet)

    def __deepcopy__(self, memo: dict[int, Any]) -> Binding:
        # the copy of a model is trained by another optimizer, or by none
        return Binding()

    def __reduce__(self) -> Any:
        return Binding, ()  # nor does a saved model know the optimizer it was trained by

    def watch(self, optimizer: Optimizer, tell: Callable[[], None]) -> None:
        """Let `tell` be called after each of the optimizer's steps; asking again changes nothing."""
        if optimizer not in self._watched:
            self._watched.add(optimizer)
            optimizer.register_step_post_hook(lambda *_: tell())

    def start(
        self,
        name: str,
        schedule: Schedule,
        optimizer: Optimizer,
        deltas: Mapping[str, Delta],
        store: ParamStore,
        total_steps: int | None,
    ) -> None:
        """Let `optimizer` drive an adapter's schedule from its first step on.

        Raises:
            AdapterError: the number of steps is not given.
        """
        if total_steps is None:
            raise AdapterError(
                f"the adapter {name!r} changes over the course of training, so its length is needed: "
                "bind(optimizer, total_steps=N) with the number of optimizer steps"
            )
        self.release(name)
        schedule.start(deltas, store, total_steps)
        bound = _Bound(schedule, total_steps)
        self.running[name] = bound

        def advance() -> None:
            bound.step += 1
            bound.schedule.step = bound.step
            bound.phase = "moving"
            bound.schedule.before_step(bound.step)

        def before(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if _nested(optimizer):
                return None
            bound.phase = "idle"
            if _skipped(optimizer):
                return None
            _unscale(optimizer)
            given = kwargs.get("closure") or (args[1] if len(args) > 1 and callable(args[1]) else None)
            if given is None:
                advance()
                return None
            bound.phase = "waiting"

            def closure() -> Any:
                loss = given()
                if bound.phase == "waiting":
                    advance()
                return loss

            if kwargs.get("closure"):
                return args, {**kwargs, "closure": closure}
            return (args[0], closure, *args[2:]), kwargs

        def after(optimizer: Any, *_: Any) -> None:
            if _nested(optimizer):
                return
            if bound.phase == "waiting":
                raise AdapterError(
                    f"{type(optimizer).__name__} was given a closure and did not call it, so the schedule of {name!r} "
                    "cannot tell when the gradients are complete; call backward yourself, then step() without one"
                )
            if bound.phase == "moving":
                bound.phase = "idle"
                store.restore()
                bound.schedule.after_step(bound.step)

        self._hooks[name] = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]

    def release(self, name: str) -> None:
        """Stop an adapter's schedule, if it runs."""
        self.running.pop(name, None)
        for hook in self._hooks.pop(name, ()):
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """Steps done and the schedules' own states, by adapter name."""
        return {
            name: {"step": bound.step, "total_steps": bound.total_steps, "state": bound.schedule.state_dict()}
            for name, bound in self.running.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken.

        Raises:
            AdapterError: it belongs to other adapters, or to a training of another length.
        """
        if state.keys() != self.running.keys():
            raise AdapterError(
                f"this state is of the schedules of {_names(state)}, bound here are those of {_names(self.running)}; "
                "attach and bind the same adapters before loading it"
            )
        for name, saved in state.items():
            bound = self.running[name]
            if saved["total_steps"] != bound.total_steps:
                raise AdapterError(
                    f"the schedule of {name!r} was saved in a training of {saved['total_steps']} steps, this one has "
                    f"{bound.total_steps}; bind with total_steps={saved['total_steps']}"
                )
        for name, saved in state.items():
            bound = self.running[name]
            bound.schedule.step = bound.step = saved["step"]
            bound.schedule.load_state_dict(saved["state"])


def _names(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "no adapter"


def innermost(optimizer: Any) -> Any:
    """The optimizer that moves the parameters, below the wrappers of accelerator libraries, which take no hooks.

    Raises:
        AdapterError: there is none.
    """
    outer = optimizer
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer) and inner is not optimizer:
        optimizer = inner
    if not hasattr(optimizer, "_optimizer_step_post_hooks"):
        raise AdapterError(
            f"expected a torch optimizer to bind to, got a {type(outer).__name__}, which runs no hooks at its steps"
        )
    return optimizer


def _nested(optimizer: Any) -> bool:
    """Whether the step whose hook asks is part of another step of the same optimizer: of a subclass, by ``super()``.

    Each of the two runs the hooks. A counter could not tell this from a step that ended with an error.
    """
    step = sys._getframe(2)
    frame = step.f_back
    while frame is not None:
        if frame.f_code is step.f_code and frame.f_locals.get("self") is optimizer:
            return True
        frame = frame.f_back
    return False


def _skipped(optimizer: Any) -> bool:
    """Whether this step will move nothing: a gradient scaler calls fused optimizers even after an overflow."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and bool(found.item())


def _unscale(optimizer: Any) -> None:
    """Undo the loss scale that a gradient scaler leaves to fused optimizers: a schedule reads true gradients."""
    scale = getattr(optimizer, "grad_scale", None)
    if not isinstance(scale, Tensor):
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(scale.to(parameter.grad))
    optimizer.grad_scale = None
