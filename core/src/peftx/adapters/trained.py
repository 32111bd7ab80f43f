"""Which parameters an optimizer may move: those of the adapters that are trained now, and nothing of the base."""

from __future__ import annotations

from torch import nn

from peftx.adapters.delta import Delta, Owned
from peftx.adapters.host import root_board
from peftx.adapters.site import Site
from peftx.adapters.slot import Slot, banks_of, slots_of

__all__ = ["declare_trained", "set_trainable"]


def set_trainable(model: nn.Module, names: tuple[str, ...], *, together: bool = True) -> None:
    """Let exactly the named adapters' trained parameters require a gradient.

    Used together, what a later adapter replaces whole (two adapters with a head each, say) takes no part in the
    output, and so is not trained.
    """
    board = root_board(model)
    if board is not None:
        board.trained = names
    wanted: dict[int, tuple[nn.Parameter, bool]] = {}

    def want(holder: nn.Module, trained: bool) -> None:
        for key in declare_trained(holder):
            parameter = holder.get_parameter(key)
            before = wanted.get(id(parameter), (parameter, False))[1]
            wanted[id(parameter)] = (parameter, before or trained)

    for _, _, slot in slots_of(model):
        hidden = _hidden(slot, names) if together else set()
        for name, labels in slot.items():
            for delta in labels.modules():
                if isinstance(delta, Delta):
                    want(delta, name in names and id(delta) not in hidden)
    for name, bank in banks_of(model).items():
        want(bank, name in names)
    for parameter, on in wanted.values():
        parameter.requires_grad_(on)
        if not on:
            parameter.grad = None


def declare_trained(holder: nn.Module) -> tuple[str, ...]:
    """Names of the parameters a delta or bank trains: those that wanted a gradient when it was attached."""
    names: tuple[str, ...] = holder.__dict__.setdefault(
        "_trained", tuple(key for key, p in holder.named_parameters() if p.requires_grad)
    )
    return names


def _hidden(slot: Slot, names: tuple[str, ...]) -> set[int]:
    """Ids of the deltas below an `Owned` of a later adapter on the same parameter, or on all of its rows."""
    hidden: set[int] = set()
    above: dict[str, list[Site]] = {}
    for delta in reversed(slot.deltas(names)):
        later = above.setdefault(delta.site.weight, [])
        if _covered(delta.site, later):
            hidden.add(id(delta))
        if isinstance(delta, Owned):
            later.append(delta.site)
    return hidden


def _covered(site: Site, later: list[Site]) -> bool:
    if not later or any(other.rows is None for other in later):
        return bool(later)
    at, end = site.rows or (0, site.shape[0])
    for start, stop in sorted(other.rows for other in later if other.rows is not None):
        if start <= at:
            at = max(at, stop)
    return at >= end
