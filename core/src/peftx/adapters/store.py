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
from torch.optim import LBFGS, Adagrad, Optimizer

from peftx.errors import AdapterError

__all__ = ["ParamStore"]

#: entries of an optimizer's state that are no moments, also where a parameter without dimensions has their shape
_COUNTERS = frozenset({"eta", "mu", "mu_product", "step"})


class ParamStore:
    """The trained parameters of one adapter together with the optimizer that holds them.

    Args:
        optimizer: a `torch.optim.Optimizer`; of its state, tensors of the parameter's shape are taken for moments and
            follow it, everything else (step counts, factored moments) stays.
        holders: the modules that declare what they train (deltas and the bank).

    Every method raises `AdapterError` for a parameter that is not this adapter's; those that change entries or shapes,
    also under L-BFGS, whose one history of all parameters cannot follow.
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
            value = rule(parameter.detach(), self.lr(parameter))
            if value.shape != parameter.shape:
                raise AdapterError(
                    f"a rule made a value of shape {tuple(value.shape)} of a parameter of shape "
                    f"{tuple(parameter.shape)}; a change of shape is `replace`"
                )
            parameter.copy_(value)

    def mask(self, parameter: nn.Parameter, keep: Tensor) -> None:
        """Zero value, gradient and moments where `keep` (bool, broadcastable) is False.

        Moments kept as codes of a few bits cannot be zeroed one by one, and are forgotten.
        """
        self._separable(parameter)
        moments = self._moments(parameter)
        if not all(entry.is_floating_point() for entry in moments.values()):
            self.forget(parameter)
            moments = {}
        with torch.no_grad():
            for tensor in (parameter, parameter.grad, *moments.values()):
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
        self._separable(parameter)
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
        self._separable(parameter)
        self.optimizer.state.pop(parameter, None)
        self._begin(parameter)

    def freeze(self, parameter: nn.Parameter) -> None:
        """Stop training a parameter; it keeps its value, and switching adapters does not thaw it."""
        self._declare(parameter, trained=False)

    def thaw(self, parameter: nn.Parameter) -> None:
        """Train a parameter (again); the optimizer must hold it."""
        self.group(parameter)
        self._declare(parameter, trained=True)

    def replace(
        self, parameter: nn.Parameter, value: Tensor, *, take: Tensor | None = None, dim: int = 0
    ) -> nn.Parameter:
        """Put a parameter of another shape in the place of one, everywhere: grow, shrink, permute.

        Args:
            parameter: the old one; it is no longer used.
            value: the new value.
            take: int64, for each place along `dim` of the new value the old place whose moments it takes over, -1 for
                none. By default moments are kept when the shape stays and dropped otherwise. Moments factored over
                the other dimensions follow as well; a state of which some tensor cannot follow is dropped whole.
            dim: the dimension `take` speaks of; the others stay.

        Returns:
            The new parameter, without gradient. Copies that a data-parallel wrapper made are not followed: wrap after.
        """
        self._separable(parameter)
        if hasattr(parameter, "placements"):
            raise AdapterError("a sharded parameter cannot change its shape; grow or shrink before sharding")
        if take is not None:
            dim = _checked(parameter, value, take, dim)
        new = nn.Parameter(value.detach().clone().to(parameter), requires_grad=parameter.requires_grad)
        old_state = self.optimizer.state.pop(parameter, None)
        for group in self.optimizer.param_groups:
            # in place: others may hold this very list
            group["params"][:] = [new if held is parameter else held for held in group["params"]]
        self._restricted = [entry for entry in self._restricted if entry[0] is not parameter]
        places = self._places.pop(id(parameter))
        self._kept.pop(id(parameter))
        self._places[id(new)], self._kept[id(new)] = places, new
        if old_state:
            self._begin(new)
            moved = self._moved(parameter, new, old_state, take, dim)
            if moved is not None:
                self.optimizer.state[new] = moved
        for holder, key in places:
            path, _, leaf = key.rpartition(".")
            holder.get_submodule(path)._parameters[leaf] = new
        return new

    def _moved(
        self, old: Tensor, new: Tensor, state: dict[str, Any], take: Tensor | None, dim: int
    ) -> dict[str, Any] | None:
        if take is None and old.shape != new.shape:
            return None
        if take is None:
            return dict(state)
        begun = self.optimizer.state.get(new, {})
        moved: dict[str, Any] = {
            name: entry
            for name, entry in state.items()
            if (name in _COUNTERS or not isinstance(entry, Tensor)) and _is_scalar(entry)
        }
        rest = {name: entry for name, entry in state.items() if name not in moved}
        if old.shape[dim] == 1 and any(getattr(entry, "shape", None) != old.shape for entry in rest.values()):
            return None  # a factor over this dimension looks like one over the others
        for name, entry in rest.items():
            if (
                not isinstance(entry, Tensor)
                or entry.dim() != old.dim()
                or entry.shape[dim] not in (1, old.shape[dim])
            ):
                return None
            if entry.shape[dim] != old.shape[dim]:  # factored: one value for all places along this dimension
                moved[name] = entry
                continue
            index = take.to(entry.device)
            fresh = (index < 0).view(*(-1 if d == dim else 1 for d in range(entry.dim())))
            blank = begun.get(name, entry.new_zeros(()))
            moved[name] = torch.where(fresh, blank, entry.index_select(dim, index.clamp_min(0)))
        return moved

    def _begin(self, parameter: nn.Parameter) -> None:
        """Give a parameter the state that some optimizers make when they are built, and not at the first step."""
        if isinstance(self.optimizer, Adagrad) and any(
            held is parameter for group in self.optimizer.param_groups for held in group["params"]
        ):
            settings = {
                key: value for key, value in self.group(parameter).items() if key in self.optimizer.defaults
            }
            self.optimizer.state[parameter] = Adagrad([parameter], **settings).state[parameter]

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.optimizer.state.get(parameter, {})
        return {name: entry for name, entry in state.items() if _is_moment(name, entry, parameter)}

    def _declare(self, parameter: nn.Parameter, *, trained: bool) -> None:
        self._known(parameter)
        for holder, key in self._places[id(parameter)]:
            others = tuple(name for name in holder.__dict__.get("_trained", ()) if name != key)
            holder.__dict__["_trained"] = (*others, key) if trained else others
        parameter.requires_grad_(trained)
        if not trained:
            parameter.grad = None

    def _separable(self, parameter: nn.Parameter) -> None:
        self._known(parameter)
        if isinstance(self.optimizer, LBFGS):
            raise AdapterError(
                "L-BFGS keeps one history of all parameters, so entries of one cannot be masked, moved or forgotten; "
                "train this adapter with a first-order optimizer"
            )

    def _known(self, parameter: nn.Parameter) -> None:
        if id(parameter) not in self._places:
            raise AdapterError(
                f"a parameter of shape {tuple(parameter.shape)} is not one of this adapter's, or was replaced"
            )


def _is_scalar(entry: Any) -> bool:
    return (
        entry.dim() == 0
        if isinstance(entry, Tensor)
        else entry is None or isinstance(entry, int | float | str)
    )


def _is_moment(name: str, entry: Any, parameter: Tensor) -> bool:
    return (
        isinstance(entry, Tensor)
        and entry.shape == parameter.shape
        and (entry.dim() > 0 or name not in _COUNTERS)
    )


def _checked(old: Tensor, new: Tensor, take: Tensor, dim: int) -> int:
    """The dimension of a `take`, counted from the front, if the new value's shape is what it says."""
    if not -old.dim() <= dim < old.dim():
        raise AdapterError(f"there is no dimension {dim} in a parameter of shape {tuple(old.shape)}")
    dim %= old.dim()
    if take.dtype != torch.int64 or take.dim() != 1:
        raise AdapterError(f"take is a list of places (int64), got {take.dtype} of shape {tuple(take.shape)}")
    expected = (*old.shape[:dim], len(take), *old.shape[dim + 1 :])
    if tuple(new.shape) != expected:
        raise AdapterError(
            f"with {len(take)} places taken along dimension {dim} of {tuple(old.shape)}, the new value has shape "
            f"{expected}, got {tuple(new.shape)}"
        )
    if len(take) and not -1 <= int(take.min()) <= int(take.max()) < old.shape[dim]:
        raise AdapterError(
            f"take names places from {int(take.min())} to {int(take.max())}; there are 0 to {old.shape[dim] - 1}, "
            "and -1 for none"
        )
    return dim
