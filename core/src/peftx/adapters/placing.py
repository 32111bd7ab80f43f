"""Putting built deltas into a model, and taking them out again: slots, swapped classes, the bank at the root."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from peftx.adapters.delta import Delta
from peftx.adapters.host import BOARD, is_host, root_board, swap_in, swap_out
from peftx.adapters.insert import Insert
from peftx.adapters.site import SitePlan
from peftx.adapters.slot import BANK, SLOT, Board, Slot, slots_of

__all__ = ["drop_bank", "hold_bank", "place", "withdraw"]


def place(
    model: nn.Module, board: Board, name: str, deltas: dict[str, dict[str, Delta]], sites: SitePlan
) -> None:
    """Swap classes and put the deltas in their slots.

    Three kinds of modules get a slot that is empty under this name: one that reads another's weight without calling
    it, so that it splits a partitioned batch where the other never sees it; one whose input an insert elsewhere reads;
    and an attention that torch's encoders would read on their way past an adapter.
    """
    opaque = {path: _batch_dim(model, path) for path in _bypassed(model, sites)}
    at = [(path, site.batch_dim) for site in sites for path in (site.reader, site.read) if path is not None]
    dims = opaque | dict(at) | {site.module: site.batch_dim for site in sites}
    for path, dim in dims.items():
        module = model.get_submodule(path)
        swap_in(module)
        if SLOT not in module._modules:
            module._modules[SLOT] = Slot(board, path or type(module).__name__, dim)
        slot: Any = module._modules[SLOT]
        slot[name] = nn.ModuleDict(deltas.get(path, {}))
        slot[name].train(board.training)
        for delta in deltas.get(path, {}).values():
            delta.__dict__["_board"] = board
            slot.inserted = slot.inserted or isinstance(delta, Insert)
    for path in opaque:
        _slot(model, path).shield(name)
    for site in sites:
        if site.read is not None:
            insert = deltas[site.module][site.label]
            assert isinstance(insert, Insert)
            _slot(model, site.read).listen(name, insert)
    swap_in(model)
    model.__dict__[BOARD] = board


def _slot(model: nn.Module, path: str) -> Slot:
    slot = model.get_submodule(path)._modules[SLOT]
    assert isinstance(slot, Slot)
    return slot


def _batch_dim(model: nn.Module, path: str) -> int:
    attention: Any = model.get_submodule(path)
    return 0 if attention.batch_first else 1


def hold_bank(model: nn.Module, board: Board, name: str, bank: nn.Module, sites: SitePlan) -> None:
    """Put what the sites share at the root, where it is moved and saved once."""
    modules = [model.get_submodule(site.module) for site in sites]
    devices = {p.device for module in modules for p in module._parameters.values() if p is not None}
    if len(devices) == 1:
        bank = bank.to(devices.pop())
    banks: Any = model._modules.setdefault(BANK, nn.ModuleDict())
    banks[name] = bank
    bank.train(board.training)


def drop_bank(model: nn.Module, name: str) -> None:
    """Take an adapter's bank away, if it has one."""
    banks: Any = model._modules.get(BANK)
    if banks is not None:
        banks._modules.pop(name, None)
        if not len(banks):
            model._modules.pop(BANK)


def _bypassed(model: nn.Module, sites: SitePlan) -> Iterator[str]:
    """Attentions whose weights must not be read from outside, because torch's encoders then take a fast path.

    A layer's path goes past an insert in the layer or around it. A stack asks its first layer alone, and then gives all
    of them the padded batch as nested tensors; what is adapted further up may not be able to work with these.
    """
    inserts = [site.module for site in sites if site.kind == "activation"]
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            if any(_within(at, path) or _within(path, at) for at in inserts):
                yield _join(path, "self_attn")
        elif isinstance(module, nn.TransformerEncoder):
            first = _join(path, "layers.0")
            inside = [site.module for site in sites if _within(site.module, path)]
            # what is adapted in the first layer is told by its own weights
            if inside and not any(_within(at, first) for at in inside):
                attention = getattr(module.layers[0], "self_attn", None)
                if isinstance(attention, nn.MultiheadAttention):
                    yield _join(first, "self_attn")


def _within(path: str, parent: str) -> bool:
    return f"{path}.".startswith(f"{parent}." if parent else "")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def withdraw(model: nn.Module, name: str, fresh: bool) -> None:
    """Undo what `_insert` got done before it failed."""
    drop_bank(model, name)
    for _, module, slot in list(slots_of(model)):
        slot.drop(name)
        if not len(slot):
            module._modules.pop(SLOT)
            if module is not model:
                swap_out(module)
    if fresh:
        model.__dict__.pop(BOARD, None)
    if is_host(model) and root_board(model) is None and SLOT not in model._modules:
        swap_out(model)
