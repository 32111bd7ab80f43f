"""What TARGET and the names among the flags mean: ``peftx run vision``, ``run vision.classification``, ``run lora
--data digits``.

Torch-free and pydantic-free: names only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from peftx.errors import ConfigError, UnknownNameError, UserError, near_matches
from peftx.plugins.descriptors import DatasetSpec, MethodSpec, ModelSpec, TaskSpec
from peftx.plugins.registry import Entry, Registry

__all__ = ["DEFAULT_METHOD", "NOTHING", "Chosen", "choose", "targets"]

DEFAULT_METHOD = "core.lora"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The four things of a run, as far as they are known; `model_name` may be free text that only the task's
    pack understands, and `model` is None then."""

    task: Entry[TaskSpec] | None
    method: Entry[MethodSpec] | None
    data: Entry[DatasetSpec] | None
    model: Entry[ModelSpec] | None
    model_name: str = ""
    model_config: str = ""

    def name_of(self, section: str) -> str:
        """The full name chosen for a section, with a data set's argument; an empty string when nothing
        was."""
        if section == "model":
            return self.model_name
        entry: Entry[TaskSpec] | Entry[MethodSpec] | Entry[DatasetSpec] | None = getattr(self, section)
        if entry is None:
            return ""
        return f"{entry.name}:{entry.argument}" if entry.argument else entry.name

    def config_target(self, section: str) -> tuple[str, str]:
        """The config target of a section and the distribution it comes from; empty when there is none."""
        if section == "model":
            owner = self.model or self.task
            return self.model_config, owner.plugin.distribution if owner else ""
        entry = getattr(self, section)
        return ("", "") if entry is None else (entry.spec.config, entry.plugin.distribution)


#: Nothing chosen yet.
NOTHING = Chosen(None, None, None, None)


def choose(
    registry: Registry,
    target: str,
    typed: Mapping[str, str],
    file: Mapping[str, str] | None = None,
    *,
    need_task: bool = True,
) -> Chosen:
    """Resolve TARGET, the names given by flags and those of a file (keys task, method, data, model).

    TARGET is a domain, a task, or a method, full or bare; an empty one leaves all to the names. Flags and
    TARGET win over the file, the task's defaults fill the rest. A method of a domain without tasks takes the
    task of the data set's domain, or of the only domain that knows the model. Raises UnknownNameError, PluginError
    or ConfigError; without `need_task` a task that stays open is no error.
    """
    file = file or {}
    task, method = _target(registry, target) if target else (None, None)
    if typed.get("task"):
        task = registry.resolve_task(typed["task"], task.domain if task else method.domain if method else "")
    if typed.get("method"):
        named = registry.resolve_method(typed["method"], task.domain if task else "")
        if method is not None and named.name != method.name:
            raise ConfigError(
                f"two methods: {method.name} as the target and {named.name} by --method; name one"
            )
        method = named
    if task is None and method is not None and method.domain in _domains(registry):
        task = registry.resolve_task(method.domain)
    if task is None and file.get("task"):
        task = registry.resolve_task(file["task"])
    domain = task.domain if task else ""
    data_name = typed.get("data") or file.get("data")
    data = registry.resolve_dataset(data_name, domain) if data_name else None
    if task is None and data is not None and data.domain in _domains(registry):
        task = registry.resolve_task(data.domain)
    if method is None and file.get("method"):
        method = registry.resolve_method(file["method"], domain)
    model_name = typed.get("model") or file.get("model") or ""
    if task is None and model_name:
        task = _task_of_model(registry, model_name)
    if task is None:
        if need_task:
            raise ConfigError(_no_task(registry, method))
        return Chosen(None, method, data, None)
    if method is None:
        method = registry.resolve_method(task.spec.default_method or DEFAULT_METHOD)
    if data is None and task.spec.default_data:
        data = registry.resolve_dataset(task.spec.default_data, task.domain)
    return Chosen(task, method, data, *_model(registry, task, model_name or task.spec.default_model))


def targets(registry: Registry) -> list[str]:
    """Every name TARGET may be, for near matches and completion."""
    return [*_domains(registry), *registry.methods, *registry.tasks]


def _domains(registry: Registry) -> list[str]:
    return list(dict.fromkeys(entry.domain for entry in registry.tasks.values()))


def _target(registry: Registry, target: str) -> tuple[Entry[TaskSpec] | None, Entry[MethodSpec] | None]:
    if target in _domains(registry) or target in registry.tasks:
        return registry.resolve_task(target), None
    if target in registry.methods:
        return None, registry.methods[target]
    if target == "core":
        raise ConfigError(
            "core has methods but no task: name a domain, such as `peftx run vision --method core.lora`"
        )
    registry.refuse_unloaded(target)
    tails = [name for name in (*registry.methods, *registry.tasks) if name.partition(".")[2] == target]
    if len(tails) > 1:
        raise UnknownNameError(f"{target} is ambiguous: {', '.join(tails)}; write the full name")
    if tails:
        if tails[0] in registry.tasks:
            return registry.tasks[tails[0]], None
        return None, registry.methods[tails[0]]
    hint = near_matches(target, targets(registry))
    raise UnknownNameError(f"no domain, task or method is called {target!r}.{hint} See `peftx list`.")


def _model(registry: Registry, task: Entry[TaskSpec], name: str) -> tuple[Entry[ModelSpec] | None, str, str]:
    """A registered model, or free text the task's pack accepts: entry, name, config target."""
    if not name:
        return None, "", ""
    try:
        model = registry.resolve_model(name, task.domain)
    except UnknownNameError:
        answer = task.load("models")(name) if task.spec.models else False
        if not answer:
            raise
        return None, name, answer if isinstance(answer, str) else ""
    return model, model.name, model.spec.config


def _task_of_model(registry: Registry, name: str) -> Entry[TaskSpec] | None:
    """The first task of the only domain that knows a model of this name; None where none does, or several do."""
    domains = _domains(registry)
    with contextlib.suppress(UserError):
        own = registry.resolve_model(name).domain
        return registry.resolve_task(own) if own in domains else None
    found = []
    for domain in domains:
        task = registry.resolve_task(domain)
        try:
            _model(registry, task, name)
        except UserError:
            continue
        found.append(task)
    return found[0] if len(found) == 1 else None


def _no_task(registry: Registry, method: Entry[MethodSpec] | None) -> str:
    domains = _domains(registry)
    if not domains:
        ways = "; ".join(pack.how_to_get() for pack in registry.missing_packs() if pack.state == "available")
        return f"no installed pack has a task to run: {ways or 'see `peftx list`'}"
    if method is not None:
        return f"{method.name} fits many domains: name one, such as `peftx run {domains[0]} --method {method.name}`"
    return f"no target: name a domain, a task or a method, such as `peftx run {domains[0]}`; see `peftx list`"
