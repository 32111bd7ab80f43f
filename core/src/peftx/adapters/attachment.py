"""Attaching and detaching: everything is built first, then the model is changed in one go.

A failure while building leaves the model untouched. Detaching restores classes, parameters and `requires_grad`
exactly; base weights were never written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from peftx.adapters.base import to_canonical
from peftx.adapters.delta import Delta, Owned
from peftx.adapters.host import BOARD, root_board, swap_in, swap_out
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.slot import SLOT, Board, Selection, Slot, slots_of
from peftx.errors import AdapterError, ConfigError, SelectionError

__all__ = ["Attachment", "attach_to", "detach_from", "remove_from", "resolve_method"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Attachment:
    """One adapter on a model: what it is and where it went. Holds no tensor and no module."""

    name: str
    method_name: str
    method: AdapterMethod
    config: Any
    plan: SitePlan
    owned: SitePlan

    @property
    def sites(self) -> SitePlan:
        """Adapted sites and owned parameters together."""
        return self.plan + self.owned


def resolve_method(method: Any, config: Any, options: dict[str, Any]) -> tuple[str, AdapterMethod, Any]:
    """(name, method, validated configuration) from a method's name, class or instance.

    Raises:
        UnknownNameError, PluginError: no such method, or its pack is missing or broken.
        ConfigError: an option is unknown or out of range, or both a config and options are given.
    """
    name = method if isinstance(method, str) else ""
    if isinstance(method, str):
        from peftx.plugins import get_registry, load_target

        entry = get_registry().resolve_method(method)
        name = entry.spec.name
        if entry.spec.kind != "adapter":
            raise ConfigError(
                f"{name} is a {entry.spec.kind}, which does not attach to a model; use `peftx run {name}`"
            )
        method = load_target(entry.spec.target)
    if isinstance(method, type) and issubclass(method, AdapterMethod):
        method = method()
    if not isinstance(method, AdapterMethod):
        raise AdapterError(f"expected a method's name or an AdapterMethod, got {type(method).__name__}")
    name = name or f"{type(method).__module__}:{type(method).__qualname__}"
    if config is not None and options:
        raise ConfigError(f"give {name} either config= or options ({', '.join(options)}), not both")
    cls = method.Config
    if config is None or isinstance(config, dict):
        try:
            config = cls(**(options if config is None else config))
        except ValidationError as error:
            from peftx.config.errors import as_config_error

            raise as_config_error(
                error, prefix=name, known=[f"{name}.{key}" for key in cls.model_fields]
            ) from None
    if not isinstance(config, cls):
        raise ConfigError(f"{name} takes a {cls.__name__}, got a {type(config).__name__}")
    return name, method, config


def attach_to(
    model: nn.Module,
    method: Any,
    name: str,
    config: Any,
    recompute_activations: bool,
    options: dict[str, Any],
) -> Board:
    """Attach one adapter; see `peftx.adapters.attach`."""
    method_name, method, config = resolve_method(method, config, options)
    board = root_board(model)
    _check_place(model, name, board)
    fresh = board is None
    board = board or Board()
    plan, owned = method.plan(model, config), method.owned(model, config)
    if not len(plan) and not len(owned):
        raise SelectionError(
            f"{method_name} found nothing to train: no target was given and the model has no part in the role of a "
            "head; name targets, or the head's module in also_train"
        )
    method.check(plan, config)
    deltas = _build(model, method, config, plan, owned)

    base = list(_base_parameters(model))
    for key, parameter in base:
        board.frozen.setdefault(key, parameter.requires_grad)
        parameter.requires_grad_(False)
    for module_path, of_module in deltas.items():
        module = model.get_submodule(module_path)
        swap_in(module)
        slot: Any = module._modules.get(SLOT)
        if slot is None:
            slot = Slot(
                board, module_path or type(model).__name__, next(iter(of_module.values())).site.batch_dim
            )
            slot.train(module.training)
            module._modules[SLOT] = slot
        labels = nn.ModuleDict(of_module)
        labels.train(module.training)
        slot[name] = labels
    if fresh:
        swap_in(model)
        model.__dict__[BOARD] = board
    board.attachments[name] = Attachment(name, method_name, method, config, plan, owned)
    board.recompute_activations = board.recompute_activations or recompute_activations
    board.current = Selection(names=(name,))
    set_trainable(model, (name,))
    if model.training:
        model.train()
    return board


def _check_place(model: nn.Module, name: str, board: Board | None) -> None:
    if not isinstance(model, nn.Module):
        raise AdapterError(f"expected a torch module to adapt, got {type(model).__name__}")
    if not _NAME.fullmatch(name) or hasattr(nn.ModuleDict, name) or name == "board":
        raise ConfigError(
            f"{name!r} cannot name an adapter; use letters, digits, - and _, and no name of a torch module's method"
        )
    if board is not None and name in board.attachments:
        raise ConfigError(
            f"an adapter named {name!r} is attached already; choose another name or remove it first"
        )
    for path, _, slot in slots_of(model):
        if slot.board is not board:
            raise AdapterError(
                f"{path or 'the model'} was adapted through another root; attach to that root, or detach there first"
            )


def _base_parameters(model: nn.Module) -> Any:
    for key, parameter in model.named_parameters(remove_duplicate=False):
        if SLOT not in key.split("."):
            yield key, parameter


def _build(
    model: nn.Module, method: AdapterMethod, config: Any, plan: SitePlan, owned: SitePlan
) -> dict[str, dict[str, Delta]]:
    """All deltas, by module and label, before anything is changed."""
    built: dict[str, dict[str, Delta]] = {}
    for site in plan:
        parameters: Any = model.get_submodule(site.module)._parameters
        weight = parameters[site.weight]
        _refuse_quantised(site, weight)
        canonical = to_canonical(site.kind, weight.detach())
        bias = None if site.bias is None else parameters[site.bias].detach()
        if site.rows is not None:
            canonical = canonical[slice(*site.rows)]
            bias = None if bias is None else bias[slice(*site.rows)]
        delta = method.build(site, config, canonical, bias)
        delta.to(weight.device)
        built.setdefault(site.module, {})[site.label] = delta
    shared: dict[int, nn.Parameter] = {}
    for site in owned:
        parameter: Any = model.get_submodule(site.module)._parameters[site.weight]
        _refuse_quantised(site, parameter)
        # tied parameters (token table and output layer) stay tied in the adapter's copy
        copy = Owned(site, shared.get(id(parameter), parameter.detach()))
        shared.setdefault(id(parameter), copy.value)
        built.setdefault(site.module, {})[site.label] = copy
    return built


def _refuse_quantised(site: Site, weight: torch.Tensor) -> None:
    if not weight.dtype.is_floating_point:
        raise AdapterError(
            f"{site.key} holds {weight.dtype} values; quantised bases are not supported: load the model in float32, "
            "bfloat16 or float16"
        )


def set_trainable(model: nn.Module, names: tuple[str, ...]) -> None:
    """Let exactly the named adapters' trained parameters require a gradient."""
    wanted: dict[int, tuple[nn.Parameter, bool]] = {}
    for _, _, slot in slots_of(model):
        for name, labels in slot.items():
            for delta in labels.modules():
                if not isinstance(delta, Delta):
                    continue
                trained = delta.__dict__.setdefault(
                    "_trained", tuple(key for key, p in delta.named_parameters() if p.requires_grad)
                )
                for key in trained:
                    parameter = delta.get_parameter(key)
                    on = wanted.get(id(parameter), (parameter, False))[1]
                    wanted[id(parameter)] = (parameter, on or name in names)
    for parameter, on in wanted.values():
        parameter.requires_grad_(on)
        if not on:
            parameter.grad = None


def remove_from(model: nn.Module, board: Board, name: str) -> None:
    """Take one adapter away; modules that carry none any more get their class back."""
    for _, module, slot in list(slots_of(model)):
        if name in slot:
            del slot[name]
        if not len(slot):
            if module is model:
                module._modules.pop(SLOT)
            else:
                swap_out(module)
    del board.attachments[name]
    board.current = Selection(names=tuple(n for n in board.current.names if n != name))


def detach_from(model: nn.Module, board: Board) -> None:
    """Take every adapter away and restore the model as it was before the first."""
    for _, module, _ in list(slots_of(model)):
        if module is not model:
            swap_out(module)
    swap_out(model)
    model.__dict__.pop(BOARD, None)
    for key, parameter in _base_parameters(model):
        parameter.requires_grad_(board.frozen.get(key, parameter.requires_grad))
