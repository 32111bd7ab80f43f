"""`ParamStore`: the one way to change parameters while an optimizer trains them.

A parameter, its gradient and the optimizer's moments belong together: zeroing an entry whose momentum lives on lets it
come back at the next step, and a parameter that is replaced leaves an optimizer that trains the old one. Each
operation here does all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from peftx.errors import AdapterError

__all__ = ["ParamStore"]


class ParamStore:
    """The trained parameters of one adapter together with the optimizer that holds them.

    Args:
        optimizer: any `torch.optim.Optimizer`; of its state, tensors of the parameter's shape are taken for moments
            and follow it, everything else (step counts) stays.
        holders: the modules that declare what they train (deltas and the bank).

    Every method raises `AdapterError` for a parameter that is not this adapter's.
    """

    def __init__(self, optimizer: Optimizer, holders: Iterable[nn.Module]) -> None:
        self.optimizer = optimizer
        self._places: dict[int, list[tuple[nn.Module, str]]] = {}
        self._kept: dict[int, nn.Parameter] = {}  # an id is only good while its object lives
        self._restricted: list[tuple[nn.Parameter, Tensor, Tensor, dict[str, Tensor]]] = []
        for holder in holders:
            for key, parameter in holder.named_parameters(remove_duplicate=False):
                self._places.setdefault(id(parameter), []).append((holder, key))
                self._kept[id(parameter)] = parameter

    def group(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The optimizer's group of a parameter: its learning rate, weight decay and other settings, live."""
        self._known(parameter)
        for group in self.optimizer.param_groups:
            if any(held is parameter for held in group["params"]):
                return group
        raise AdapterError("this parameter is not in the optimizer the adapter was bound to")

    def lr(self, parameter: nn.Parameter) -> float:
        """The learning rate of the coming step."""
        return float(self.group(parameter)["lr"])

    def update(self, parameter: nn.Parameter, rule: Callable[[Tensor, float], Tensor]) -> None:
        """Set ``value = rule(value, lr)`` in place: a proximal map, a projection. Moments stay."""
        with torch.no_grad():
            parameter.copy_(rule(parameter.detach(), self.lr(parameter)))

    def mask(self, parameter: nn.Parameter, keep: Tensor) -> None:
        """Zero value, gradient and moments where `keep` (bool, broadcastable) is False."""
        self._known(parameter)
        with torch.no_grad():
            for tensor in (parameter, parameter.grad, *self._moments(parameter).values()):
                if tensor is not None:
                    tensor.masked_fill_(~keep, 0)

    def mask_gradient(self, parameter: nn.Parameter, keep: Tensor) -> None:
        """Zero the gradient alone where `keep` is False: the coming step does not follow it there."""
        self._known(parameter)
        if parameter.grad is not None:
            parameter.grad.masked_fill_(~keep, 0)

    def restrict(self, parameter: nn.Parameter, keep: Tensor) -> None:
        """Let the coming step move a parameter only where `keep` is True; call it in `Schedule.before_step`.

        Value and moments of the other entries are put back after the step: masking the gradient alone would let
        momentum and weight decay move them.
        """
        self.mask_gradient(parameter, keep)
        moments = {name: entry.clone() for name, entry in self._moments(parameter).items()}
        self._restricted.append((parameter, keep, parameter.detach().clone(), moments))

    def restore(self) -> None:
        """Put back what `restrict` withheld; done after each step, before `Schedule.after_step`."""
        with torch.no_grad():
            for parameter, keep, value, moments in self._restricted:
                parameter.copy_(torch.where(keep, parameter, value))
                for name, entry in self._moments(parameter).items():
                    entry.copy_(torch.where(keep, entry, moments.get(name, torch.zeros_like(entry))))
        self._restricted.clear()

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop the optimizer's state of a parameter, as if it were new."""
        self._known(parameter)
        self.optimizer.state.pop(parameter, None)

    def freeze(self, parameter: nn.Parameter) -> None:
        """Stop training a parameter; it keeps its value, and switching adapters does not thaw it."""
        self._declare(parameter, trained=False)

    def thaw(self, parameter: nn.Parameter) -> None:
        """Train a parameter (again)."""
        self._declare(parameter, trained=True)

    def replace(
        self, parameter: nn.Parameter, value: Tensor, *, take: Tensor | None = None, dim: int = 0
    ) -> nn.Parameter:
        """Put a parameter of another shape in the place of one, everywhere: grow, shrink, permute.

        Args:
            parameter: the old one; it is no longer used.
            value: the new value.
            take: int64, for each place along `dim` of the new value the old place whose moments it takes over, -1 for
                none. By default moments are kept when the shape stays and dropped otherwise.
            dim: the dimension `take` speaks of.

        Returns:
            The new parameter, without gradient. Copies that a data-parallel wrapper made are not followed: wrap after.
        """
        self._known(parameter)
        if hasattr(parameter, "placements"):
            raise AdapterError("a sharded parameter cannot change its shape; grow or shrink before sharding")
        new = nn.Parameter(value.detach().clone(), requires_grad=parameter.requires_grad)
        old_state = self.optimizer.state.pop(parameter, None)
        if old_state:
            moved = self._moved(parameter, new, old_state, take, dim)
            if moved is not None:
                self.optimizer.state[new] = moved
        for group in self.optimizer.param_groups:
            group["params"] = [new if held is parameter else held for held in group["params"]]
        places = self._places.pop(id(parameter))
        self._kept.pop(id(parameter))
        self._places[id(new)], self._kept[id(new)] = places, new
        for holder, key in places:
            path, _, leaf = key.rpartition(".")
            holder.get_submodule(path)._parameters[leaf] = new
        return new

    def _moved(
        self, old: Tensor, new: Tensor, state: dict[str, Any], take: Tensor | None, dim: int
    ) -> dict[str, Any] | None:
        if take is None and old.shape != new.shape:
            return None
        moved = {}
        for name, entry in state.items():
            if take is None or not _is_moment(entry, old):
                moved[name] = entry
                continue
            index = take.to(entry.device)
            fresh = (index < 0).view(*(-1 if d == dim else 1 for d in range(entry.dim())))
            moved[name] = entry.index_select(dim, index.clamp_min(0)).masked_fill(fresh, 0)
        return moved

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.optimizer.state.get(parameter, {})
        return {name: entry for name, entry in state.items() if _is_moment(entry, parameter)}

    def _declare(self, parameter: nn.Parameter, *, trained: bool) -> None:
        self._known(parameter)
        for holder, key in self._places[id(parameter)]:
            others = tuple(name for name in holder.__dict__.get("_trained", ()) if name != key)
            holder.__dict__["_trained"] = (*others, key) if trained else others
        parameter.requires_grad_(trained)
        if not trained:
            parameter.grad = None

    def _known(self, parameter: nn.Parameter) -> None:
        if id(parameter) not in self._places:
            raise AdapterError(
                f"a parameter of shape {tuple(parameter.shape)} is not one of this adapter's, or was replaced"
            )


def _is_moment(entry: Any, parameter: Tensor) -> bool:
    return isinstance(entry, Tensor) and entry.shape == parameter.shape and entry.dim() > 0
