"""Checks one plugin before anything is taken from it: hook names, descriptor types, names, targets.

A plugin is taken whole or not at all: half a plugin would fail later, far from its cause.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from peftx.errors import near_matches
from peftx.plugins import hookspecs
from peftx.plugins.api import PROJECT
from peftx.plugins.descriptors import (
    METHOD_KINDS,
    METHOD_STATES,
    PANEL_PAGES,
    DatasetSpec,
    KernelSpec,
    MethodSpec,
    PanelSpec,
    Spec,
    TaskSpec,
)
from peftx.plugins.targets import is_target, one_line

S = TypeVar("S", bound=Spec)

DOMAIN = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_PART = re.compile(r"[a-z0-9][a-z0-9_]*", re.ASCII)
_HOOKS = (*hookspecs.DECLARATIONS, *hookspecs.EVENTS)


class InvalidPluginError(Exception):
    """A plugin breaks the contract; the message is the one-line cause that `peftx plugins` shows."""


@dataclass(slots=True)
class Contribution:
    """What one sound plugin declares, by hook name, in its own order."""

    specs: dict[str, list[Spec]] = field(
        default_factory=lambda: {hook: [] for hook in hookspecs.DECLARATIONS}
    )

    def of(self, kind: type[S]) -> list[S]:
        """The descriptors of one type."""
        return [spec for specs in self.specs.values() for spec in specs if isinstance(spec, kind)]


def new_manager() -> pluggy.PluginManager:
    """Return a pluggy manager that knows the hooks and no plugin."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def collect(module: ModuleType, domain: str) -> Contribution:
    """Check `module` and return what it declares. Raises InvalidPluginError with a one-line cause."""
    _check_unmarked(module)
    # A manager of its own per plugin: pluggy's checks then speak of this plugin only, and one failure stays
    # one.
    manager = new_manager()
    try:
        manager.register(module, name=domain)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise InvalidPluginError(_hook_problem(manager, error)) from error
    found = Contribution()
    for hook, expected in hookspecs.DECLARATIONS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            if implementation.hookwrapper or implementation.wrapper:
                raise InvalidPluginError(
                    f"{hook} is a hook wrapper; a plugin may only declare its own things"
                )
            for spec in _yielded(hook, implementation.function):
                _check_spec(hook, spec, expected, domain)
                found.specs[hook].append(spec)
        _check_unique(hook, found.specs[hook])
    _check_tasks(found)
    _check_references(found)
    return found


def _check_unmarked(module: ModuleType) -> None:
    for name, value in vars(module).items():
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if own and name.startswith("peftx_") and not hasattr(value, f"{PROJECT}_impl"):
            raise InvalidPluginError(f"function {name} is not marked with @hookimpl")


def _hook_problem(manager: pluggy.PluginManager, error: pluggy.PluginValidationError) -> str:
    for name, caller in sorted(vars(manager.hook).items()):
        if not name.startswith("_") and not caller.has_spec() and caller.get_hookimpls():
            return f"unknown hook {name}.{near_matches(name, _HOOKS)}"
    text = " ".join(str(error).split())
    return text.partition("Positional args")[0] or text


def _yielded(hook: str, function: Callable[[], Iterable[Any] | None]) -> list[Any]:
    try:
        result = function()
        return [] if result is None else list(result)
    except Exception as error:
        raise InvalidPluginError(f"{hook} failed: {one_line(error)}") from error


def _check_spec(hook: str, spec: Any, expected: type[Any], domain: str) -> None:
    if not isinstance(spec, expected):
        raise InvalidPluginError(f"{hook} must yield {expected.__name__}, it yielded {type(spec).__name__}")
    name = str(spec.name)
    owner, _, rest = name.partition(".")
    if owner != domain or not _PART.fullmatch(rest):
        raise InvalidPluginError(f"{hook} declares {name!r}: a name here reads '{domain}.name', lower case")
    required = ("target",) if not isinstance(spec, MethodSpec | TaskSpec) else ("target", "config")
    for attribute in ("target", "config", "locate", "models", "averages", "predict_config"):
        text = getattr(spec, attribute, "")
        if (text or attribute in required) and not is_target(text):
            raise InvalidPluginError(
                f"{name}: {attribute} {text!r} is malformed, write 'package.module:object'"
            )
    if isinstance(spec, MethodSpec):
        _one_of(name, "kind", spec.kind, METHOD_KINDS)
        _one_of(name, "status", spec.status, METHOD_STATES)
        if spec.tasks and spec.kind != "model":
            raise InvalidPluginError(f"{name}: only a model names the tasks it is compared on")
    if isinstance(spec, PanelSpec):
        _one_of(name, "on", spec.on, PANEL_PAGES)


def _one_of(name: str, what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidPluginError(f"{name}: {what} {value!r} must be one of {', '.join(allowed)}")


def _check_tasks(found: Contribution) -> None:
    tasks = [spec.name for spec in found.of(TaskSpec)]
    for method in found.of(MethodSpec):
        for name in method.tasks:
            if name not in tasks:
                raise InvalidPluginError(
                    f"{method.name}: there is no task {name!r} to compare it on.{near_matches(name, tasks)}"
                )


def _check_references(found: Contribution) -> None:
    for task in found.of(TaskSpec):
        if task.reference and task.reference not in task.baselines:
            held = ", ".join(task.baselines)
            raise InvalidPluginError(
                f"{task.name}: its reference {task.reference!r} is none of its baselines, {held}"
            )


def _check_unique(hook: str, specs: list[Spec]) -> None:
    seen: set[str] = set()
    for spec in specs:
        keys = [f"{spec.op} {spec.name}" if isinstance(spec, KernelSpec) else spec.name]
        if isinstance(spec, DatasetSpec):
            domain = spec.name.partition(".")[0]
            keys += [f"{domain}.{alias}" for alias in spec.aliases]
        for key in keys:
            if key in seen:
                raise InvalidPluginError(f"{hook} declares {key} twice")
            seen.add(key)
