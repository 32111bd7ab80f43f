"""Laws of plugins: light, within their domain, every name leading somewhere, saying who and under which licence."""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any

from peftx.errors import near_matches
from peftx.plugins import MethodSpec, load_target
from peftx.plugins.api import PLUGIN_API, PROJECT, SLOW_SECONDS
from peftx.plugins.descriptors import CommandSpec, DatasetSpec, KernelSpec, ModelSpec
from peftx.plugins.hookspecs import DECLARATIONS, EVENTS
from peftx.testing.fresh import imports_torch, seconds_to_import
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.subjects import PluginSubject

__all__ = [
    "api",
    "configs",
    "hooks",
    "licence",
    "light",
    "loads",
    "own_names",
    "summaries",
    "targets",
]

_FIELDS = ("target", "config", "predict_config", "locate", "models", "averages")


@law("plugin", needs=["api", "hooks", "own_names"])
def loads(subject: PluginSubject) -> None:
    """It loads, alone in its domain."""
    info = subject.info
    demand(info.status == "ok", f"it is {info.status}: {info.cause}")


@law("plugin")
def api(subject: PluginSubject) -> None:
    """It states the number of the plugin contract it was written for, this one's."""
    stated = getattr(subject.module, "PEFTX_API", None)
    demand(stated is not None, f"it states no PEFTX_API; write PEFTX_API = {PLUGIN_API} beside its hooks")
    demand(stated == PLUGIN_API, f"it states PEFTX_API = {stated!r}, this peftx has {PLUGIN_API}")


@law("plugin")
def hooks(subject: PluginSubject) -> None:
    """Its hooks are ones there are, marked, and yield what they are for."""
    known = (*DECLARATIONS, *EVENTS)
    for name, value in vars(subject.module).items():
        if not (inspect.isfunction(value) and value.__module__ == subject.module.__name__):
            continue
        marked = hasattr(value, f"{PROJECT}_impl")
        if marked or name.startswith("peftx_"):
            demand(name in known, f"{name} is no hook.{near_matches(name, known)}")
            demand(marked, f"{name} is not marked with @hookimpl")
    for hook, spec in subject.declared:
        expected = DECLARATIONS[hook]
        demand(
            isinstance(spec, expected), f"{hook} yields a {type(spec).__name__}, expected {expected.__name__}"
        )


@law("plugin")
def own_names(subject: PluginSubject) -> None:
    """Every name it declares is in its own domain, lower case, and declared once."""
    seen: set[tuple[str, str]] = set()
    for hook, spec in subject.declared:
        owner, _, rest = str(spec.name).partition(".")
        demand(
            owner == subject.domain and rest and rest == rest.lower(),
            f"{hook} declares {spec.name!r}, a name here reads '{subject.domain}.name', lower case",
        )
        key = (hook, spec.name + (f" {spec.op}" if isinstance(spec, KernelSpec) else ""))
        demand(key not in seen, f"{hook} declares {spec.name} twice")
        seen.add(key)


@law("plugin")
def light(subject: PluginSubject) -> None:
    """Importing it is quick and imports no torch: every command does it."""
    name = subject.module.__name__  # one that cannot be imported at all is for another law
    demand(
        not imports_torch(name), f"importing {name} imports torch; import it inside the functions that use it"
    )
    seconds = seconds_to_import(name)
    demand(seconds < SLOW_SECONDS, f"importing {name} takes {seconds:.1f} s, allowed is {SLOW_SECONDS:g} s")


@law("plugin")
def targets(subject: PluginSubject) -> None:
    """Every target leads to an object of the right kind."""
    from pydantic import BaseModel

    from peftx.adapters.method import AdapterMethod
    from peftx.runs.matching import RUN
    from peftx.tasks.contract import Task
    from peftx.tasks.models import ModelMethod

    for _, spec in subject.declared:
        for field in _FIELDS:
            text = getattr(spec, field, "")
            if not text:
                continue
            try:
                found = load_target(text)
            except Exception as error:
                raise LawError(f"{field} of {spec.name}: {error}") from error
            if field in ("config", "predict_config"):
                fits, wanted = isinstance(found, type) and issubclass(found, BaseModel), "a pydantic model"
            elif isinstance(spec, MethodSpec) and spec.kind == "adapter":
                fits = isinstance(found, type) and issubclass(found, AdapterMethod)
                wanted = "a subclass of AdapterMethod"
            elif isinstance(spec, MethodSpec) and spec.kind == "model" and field == "target":
                fits = isinstance(found, type) and issubclass(found, ModelMethod)
                wanted = "a subclass of ModelMethod"
            elif type(spec).__name__ == "TaskSpec" and field == "target":
                fits, wanted = isinstance(found, type) and issubclass(found, Task), "a subclass of Task"
            elif isinstance(spec, CommandSpec | KernelSpec | DatasetSpec | ModelSpec) or field == "models":
                fits, wanted = callable(found), "something to call"
            else:
                continue
            demand(fits, f"{field} of {spec.name} leads to {found!r}, expected {wanted}")
        if isinstance(spec, MethodSpec) and spec.kind in RUN:
            _one_config(spec)


def _one_config(spec: MethodSpec) -> None:
    method, config = load_target(spec.target), load_target(spec.config)
    demand(
        method.Config is config,
        f"the descriptor of {spec.name} names the configuration {config.__name__}, its class uses "
        f"{method.Config.__name__}",
    )


@law("plugin")
def configs(subject: PluginSubject) -> None:
    """What is imported for help, for validation and to look for files imports no torch."""
    asked = [
        (spec.name, field, getattr(spec, field))
        for _, spec in subject.declared
        for field in ("config", "predict_config", "locate", "models")
        if getattr(spec, field, "")
    ]
    if not asked:
        raise NotApplicable("it declares nothing with options")
    for name, field, text in asked:
        module = text.partition(":")[0]
        demand(not imports_torch(module), f"the {field} of {name} is in {module}, which imports torch")


@law("plugin")
def summaries(subject: PluginSubject) -> None:
    """Everything it declares says in one line what it is."""
    judged = [spec for _, spec in subject.declared if hasattr(spec, "summary")]
    if not judged:
        raise NotApplicable("it declares nothing")
    for spec in judged:
        text = spec.summary
        demand(text.strip(), f"{spec.name} has no summary")
        demand(
            "\n" not in text and len(text) <= 120,
            f"the summary of {spec.name} is not one line of 120 letters",
        )
        demand(
            not text.rstrip().endswith("."),
            f"the summary of {spec.name} ends with a full stop; it goes in a table",
        )


@law("plugin")
def licence(subject: PluginSubject) -> None:
    """Methods, data sets and models name their licence, and so does the distribution."""
    for _, spec in subject.declared:
        if isinstance(spec, MethodSpec | DatasetSpec | ModelSpec):
            demand(spec.licence.strip(), f"{spec.name} names no licence")
    distribution = subject.info.distribution
    try:
        held: Any = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        raise NotApplicable(f"the distribution {distribution} is not installed as such") from None
    stated = held.get("License-Expression") or held.get("License")
    classified = any(line.startswith("License ::") for line in held.get_all("Classifier") or [])
    demand(
        stated or classified,
        f"the metadata of {distribution} name no licence; add license to its pyproject.toml",
    )
