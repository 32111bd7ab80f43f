"""Attaching and detaching: everything is built first, then the model is changed in one go.

A failure while building leaves the model untouched. Detaching restores classes, parameters and `requires_grad`
exactly; base weights were never written.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from types import NoneType
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.parameter import is_lazy

from peftx.adapters.base import to_canonical
from peftx.adapters.delta import Delta, Owned, Statistic
from peftx.adapters.host import BOARD, hold_trunk, release_trunk, root_board, swap_out
from peftx.adapters.method import AdapterMethod
from peftx.adapters.placing import drop_bank, hold_bank, place, withdraw
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.slot import BANK, SLOT, Board, Slot, is_reserved, slots_of
from peftx.adapters.survey import statistic_sites
from peftx.adapters.surveying import one_survey
from peftx.adapters.trained import set_trainable
from peftx.errors import AdapterError, ConfigError, PeftxWarning, SelectionError

__all__ = [
    "Attachment",
    "attach_to",
    "detach_from",
    "plan_of",
    "refuse_model",
    "remove_from",
    "resolve_method",
    "select_for",
]

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

            given = options if config is None else config
            spelled = {f"{name}.{key}": f"{name}, {key}" for key in given}
            raise as_config_error(error, prefix=name, spelled=spelled, known=list(cls.model_fields)) from None
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
    planned: tuple[SitePlan, SitePlan] | None = None,
) -> Board:
    """Attach one adapter; see `peftx.adapters.attach`. `planned` is what `plan_of` said of this very model."""
    method_name, method, config = resolve_method(method, config, options)
    refuse_model(model)
    board = root_board(model)
    _check_place(model, name, board)
    board = board or Board(training=model.training)
    board.unfuse()
    plan, owned = planned or plan_of(model, method_name, method, config)
    # tensors made in inference mode could never be trained
    with torch.inference_mode(False):
        bank = method.bank(plan, config) if len(plan) else None  # nothing is adapted, so nothing is shared
        deltas = _build(model, method, config, plan, owned, bank)
        schedule = method.schedule(config)
    try:
        place(model, board, name, deltas, plan + owned)
        if bank is not None:
            hold_bank(model, board, name, bank, plan)
    except BaseException:
        withdraw(model, name, fresh=not board.attachments)
        raise
    base = list(base_parameters(model))
    for key, parameter in base:
        board.frozen.setdefault(key, parameter.requires_grad)
    for _, parameter in base:  # only now: a tied parameter has two names
        parameter.requires_grad_(False)
    board.attachments[name] = Attachment(name, method_name, method, config, plan, owned)
    if schedule is not None:
        board.schedules[name] = schedule
    board.recompute_activations = board.recompute_activations or recompute_activations
    select_for(model, board, (name,))
    for text in method.notes(plan, config):
        warnings.warn(f"{method_name}: {text}", PeftxWarning, stacklevel=3)
    return board


def select_for(model: nn.Module, board: Board, names: tuple[str, ...]) -> None:
    """Use these adapters from now on, and train them."""
    board.select(names)
    set_trainable(model, names)
    hold_again(model, board)


def plan_of(
    model: nn.Module, method_name: str, method: AdapterMethod, config: Any
) -> tuple[SitePlan, SitePlan]:
    """The sites a method adapts and the parameters it owns, checked.

    Raises:
        SelectionError: a pattern matches nothing, or there is nothing to train.
        ConfigError: the configuration does not suit the sites.
    """
    with one_survey():
        plan, owned = method.plan(model, config), method.owned(model, config)
    if not len(plan) and not len(owned):
        raise SelectionError(
            f"{method_name} found nothing to train: no target was given and the model has no part in the role of a "
            "head; name targets, or the head's module in also_train"
        )
    method.check(plan, config)
    if config.trunk == "train":
        owned = owned + SitePlan(tuple(statistic_sites(model)))
    return plan, owned


def _check_place(model: nn.Module, name: str, board: Board | None) -> None:
    if not _NAME.fullmatch(name) or hasattr(Slot(Board(), ""), name):
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


def refuse_model(model: Any) -> None:
    """Refuse what can never be adapted (raise `AdapterError`), before anybody looks for sites in it."""
    if not isinstance(model, nn.Module):
        raise AdapterError(f"expected a torch module to adapt, got {type(model).__name__}")
    for path, module in model.named_modules():
        _refuse_module(path or "the model", module)


def _refuse_module(path: str, module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise AdapterError(
            f"{path} is a TorchScript module, which cannot be adapted in place; attach to the Python module before "
            "scripting it"
        )
    if SLOT in module._parameters or not isinstance(module._modules.get(SLOT), (Slot, NoneType)):
        raise AdapterError(
            f"{path} has a part named {SLOT!r}, the name adapters are kept under; rename that part"
        )
    if not isinstance(module._modules.get(BANK), (nn.ModuleDict, NoneType)):
        raise AdapterError(f"{path} has a part named {BANK!r}, a name adapters use; rename that part")
    if any(is_lazy(parameter) for parameter in module._parameters.values() if parameter is not None):
        raise AdapterError(
            f"{path} is a lazy module whose parameters have no shape yet; run the model once on a batch, then attach"
        )


def base_parameters(model: nn.Module) -> Any:
    for key, parameter in model.named_parameters(remove_duplicate=False):
        if not is_reserved(key):
            yield key, parameter


def _build(
    model: nn.Module,
    method: AdapterMethod,
    config: Any,
    plan: SitePlan,
    owned: SitePlan,
    bank: nn.Module | None,
) -> dict[str, dict[str, Delta]]:
    """All deltas, by module and label, before anything is changed.

    What an adapter owns comes first, so that a delta on the weight of a layer whose bias is owned still has the
    last word on the product.
    """
    built: dict[str, dict[str, Delta]] = {}
    shared: dict[int, Owned] = {}
    for site in owned:
        module = model.get_submodule(site.module)
        if site.kind == "statistic":
            buffer: Any = module._buffers[site.weight]
            built.setdefault(site.module, {})[site.label] = Statistic(site, buffer)
            continue
        parameter: Any = module._parameters[site.weight]
        _refuse_quantised(site, parameter)
        if site.rows is not None:
            rows = method.own(site, config, parameter.detach()[slice(*site.rows)])
            built.setdefault(site.module, {})[site.label] = rows
            continue
        # tied parameters (token table and output layer) stay tied in the adapter's copy
        copy = method.own(
            site, config, shared[id(parameter)].value if id(parameter) in shared else parameter.detach()
        )
        first = shared.setdefault(id(parameter), copy)
        if first is not copy and (first.packing or copy.packing):
            raise ConfigError(
                f"{site.key} and {first.site.key} are one tied parameter, and the options would store it in the form "
                f"{first.packing or copy.packing!r}; give one of the two in exclude"
            )
        built.setdefault(site.module, {})[site.label] = copy
    extra = () if bank is None else (bank,)
    for site in plan:
        module = model.get_submodule(site.module)
        if site.kind == "activation":
            example = next(module.parameters(), torch.empty(0))
            insert = method.build(site, config, example.new_empty(0, dtype=site.dtype), None, *extra)
            built.setdefault(site.module, {})[site.label] = insert.to(example.device)
            continue
        parameters: Any = module._parameters
        weight = parameters[site.weight]
        _refuse_quantised(site, weight)
        canonical = to_canonical(site.kind, weight.detach())
        bias = None if site.bias is None else parameters[site.bias].detach()
        if site.rows is not None:
            canonical = canonical[slice(*site.rows)]
            bias = None if bias is None else bias[slice(*site.rows)]
        delta = method.build(site, config, canonical, bias, *extra)
        if delta.routed and not site.product:
            raise ConfigError(
                f"the update depends on the input, but {site.key} ({site.kind}) is read without being called, so its "
                "input is never seen; exclude the site"
            )
        delta.to(weight.device)
        built.setdefault(site.module, {})[site.label] = delta
    return built


def _refuse_quantised(site: Site, weight: torch.Tensor) -> None:
    if not weight.dtype.is_floating_point or weight.dtype.itemsize < 2:
        raise AdapterError(
            f"{site.key} holds {weight.dtype} values; quantised bases are not supported: load the model in float32, "
            "bfloat16 or float16"
        )


def remove_from(model: nn.Module, board: Board, name: str) -> None:
    """Take one adapter away; modules that carry none any more get their class back."""
    if board.fused is not None and name in board.fused.names:
        board.unfuse()
    drop_bank(model, name)
    board.binding.release(name)
    board.schedules.pop(name, None)
    for _, module, slot in list(slots_of(model)):
        slot.drop(name)
        if not len(slot):
            if module is model:
                module._modules.pop(SLOT)
            else:
                swap_out(module)
    del board.attachments[name]
    board.select(tuple(n for n in board.current.names if n != name))
    hold_again(model, board)


def hold_again(model: nn.Module, board: Board) -> None:
    """Hold the trunk as the adapters now active ask."""
    release_trunk(model, board)
    hold_trunk(model, board)


def detach_from(model: nn.Module, board: Board) -> None:
    """Take every adapter away and restore the model as it was before the first."""
    board.unfuse()
    release_trunk(model, board)
    for _, module, _ in list(slots_of(model)):
        if module is not model:
            swap_out(module)
    swap_out(model)
    model._modules.pop(BANK, None)
    for name in board.attachments:
        board.binding.release(name)
    model.__dict__.pop(BOARD, None)
    for key, parameter in base_parameters(model):
        parameter.requires_grad_(board.frozen.get(key, parameter.requires_grad))
