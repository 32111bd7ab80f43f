"""What things are called in tables: a name, and no more options than it takes to know which one is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftx.results.facts import canonical

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

__all__ = ["Defaults", "differing", "flat", "named", "show"]


def show(value: Any) -> str:
    """A setting as one would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # two settings never look like one
    if isinstance(value, list | tuple):
        return ",".join(map(show, value)) or "none"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={show(item)}" for key, item in value.items()) or "none"
    return str(value)


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``{"option": {"rank": 8}}`` as ``{"option.rank": 8}``."""
    return {
        f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()
    }


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all of them, in the order they first appear; absent is as good as None."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({canonical(one.get(key)) for one in settings}) > 1]


def named(name: str, settings: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The name and some of its settings: ``core.lora rank=4 lr=0.003``. A key loses its section where that is clear."""
    keys = list(keys)
    last = [key.rpartition(".")[2] for key in keys]
    words = [key if last.count(tail) > 1 else tail for key, tail in zip(keys, last, strict=True)]
    return " ".join([name, *(f"{w}={show(settings.get(key))}" for w, key in zip(words, keys, strict=True))])


class Defaults:
    """The defaults of tasks, methods, data sets and models, asked of their own configuration classes.

    A record holds every option its run had. An option that a later version added is not in it, and had the value that
    is the default now; so settings are compared after the defaults were filled in.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str], dict[str, Any] | None] = {}

    def of(self, section: str, name: str, task: str = "") -> dict[str, Any] | None:
        """Defaults of what `name` names in a section (task, method, data, model, train); None when nobody knows."""
        key = (section, name)
        if key not in self._known:
            try:
                self._known[key] = self._ask(section, name, task)
            except (
                Exception
            ):  # a pack that is gone, or broken, or asks for an option: then only the records speak
                self._known[key] = None
        return self._known[key]

    def reference(self, task: str) -> str:
        """The method that gaps on a task are told to, empty for none."""
        entry = None if self._registry is None else self._registry.tasks.get(task)
        return "" if entry is None else entry.spec.reference

    def filled(self, section: str, name: str, given: Mapping[str, Any], task: str = "") -> dict[str, Any]:
        """The options, and after them those they leave out."""
        known = self.of(section, name, task) or {}
        return {**given, **{key: value for key, value in known.items() if key not in given}}

    def _ask(self, section: str, name: str, task: str) -> dict[str, Any] | None:
        if self._registry is None:
            return None
        if section == "train":
            from peftx.config.run import TrainConfig

            return TrainConfig().model_dump(mode="json")
        bare, _, argument = name.partition(":")
        tables: dict[str, Mapping[str, Any]] = {
            "task": self._registry.tasks,
            "method": self._registry.methods,
            "data": self._registry.datasets,
            "model": self._registry.models,
        }
        entry = tables[section].get(bare)
        if entry is not None:
            schema: Callable[..., Any] | None = entry.load("config") if entry.spec.config else None
        else:
            schema = self._free_model(name, task) if section == "model" else None
        if schema is None:
            return {} if entry is not None else None
        values: dict[str, Any] = schema(**({"path": argument} if argument else {})).model_dump(mode="json")
        if argument:
            values.pop("path", None)
        return values

    def _free_model(self, name: str, task: str) -> Callable[..., Any] | None:
        """The options of a model that only the task's pack understands."""
        from peftx.plugins.targets import load_target

        assert self._registry is not None
        entry = self._registry.tasks[task]
        answer = entry.load("models")(name) if entry.spec.models else None
        found: Callable[..., Any] | None = load_target(answer) if isinstance(answer, str) else None
        return found
