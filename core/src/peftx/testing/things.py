"""What a name stands for: the method, row, data set, task, model or plugin that laws are judged on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftx.errors import PeftxError, UnknownNameError, near_matches
from peftx.testing.cases import CASES, FAST, case_named
from peftx.testing.lawbook import Kind, Law

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

__all__ = ["Thing", "things_called"]


@dataclass
class Thing:
    """Something to judge: its kind, its name, what laws take as their argument, what it says is known to fail."""

    kind: Kind
    name: str
    subject: Any
    known: Mapping[Any, str] = field(default_factory=dict)
    #: why it cannot be made, when it is one of many of a plugin
    refusal: str = ""

    def subjects(self, law: Law, *, cases: Collection[str] = (), fast: bool = False) -> list[tuple[str, Any]]:
        """(case, argument) pairs to judge a law on; the case is empty for a law that is judged once."""
        if not law.each_case or self.refusal:
            return [("", self.subject)]
        from peftx.testing.trial import Trial

        if cases:
            chosen = [case_named(name) for name in cases]
        else:
            chosen = [case_named(name) for name in FAST] if fast else list(CASES)
        return [(case.name, Trial(self.subject, case)) for case in chosen]


def things_called(
    name: Any,
    *,
    options: Mapping[str, Any] | None = None,
    context: Any = None,
    registry: Registry | None = None,
) -> list[Thing]:
    """Everything a name stands for; a plugin's domain stands for the plugin and all it declares.

    Raises:
        UnknownNameError, PluginError: there is nothing of that name.
    """
    if not isinstance(name, str):
        return [_method(name, options)]
    from peftx.plugins import get_registry

    registry = registry or get_registry()
    if any(name == info.domain for info in registry.plugins):  # also one that did not load
        return [_plugin(name, registry), *_declared_by(name, options, context, registry)]
    bare = name.partition(":")[0]
    found: list[Thing] = []
    known: list[str] = []
    for kind, table in _tables(registry).items():
        known += table
        full = [entry for entry in table if bare in (entry, entry.partition(".")[2])]
        exact = [entry for entry in full if entry == bare]
        for entry in exact or full:
            # what stood after a colon is a data set's argument
            found.append(_thing(kind, entry + name[len(bare) :], options, context, registry))
    other = [
        entry for entry in registry.methods.values() if bare in (entry.name, entry.name.partition(".")[2])
    ]
    if not found and other:
        raise UnknownNameError(
            f"{other[0].name} is a {other[0].spec.kind}, and the kit has laws for methods of kind adapter and model, "
            "data sets, tasks, models and plugins only"
        )
    if not found:
        try:
            found.append(
                _thing(
                    "data set",
                    registry.resolve_dataset(name).name + name[len(bare) :],
                    options,
                    context,
                    registry,
                )
            )
        except UnknownNameError:
            registry.refuse_unloaded(name)
            raise UnknownNameError(
                f"nothing is called {name!r}.{near_matches(name, [*known, *registry.domains])} See `peftx list`."
            ) from None
    return found


def _tables(registry: Registry) -> dict[Kind, Iterable[str]]:
    def methods(kind: str) -> list[str]:
        return [name for name, entry in registry.methods.items() if entry.spec.kind == kind]

    return {
        "method": methods("adapter"),
        "row": methods("model"),
        "data set": list(registry.datasets),
        "task": list(registry.tasks),
        "model": list(registry.models),
    }


def _declared_by(
    domain: str, options: Mapping[str, Any] | None, context: Any, registry: Registry
) -> list[Thing]:
    found: list[Thing] = []
    for kind, names in _tables(registry).items():
        for name in names:
            if name.partition(".")[0] != domain:
                continue
            try:
                found.append(_thing(kind, name, options, context, registry))
            except PeftxError as error:  # one that cannot be made keeps none of the others from being judged
                found.append(Thing(kind, name, None, refusal=str(error)))
    return found


def _thing(
    kind: Kind, name: str, options: Mapping[str, Any] | None, context: Any, registry: Registry
) -> Thing:
    if kind == "method":
        return _method(name, options)
    if kind == "row":
        return _row(name, options, context, registry)
    from peftx.testing import subjects

    make = {
        "data set": subjects.DataSubject,
        "task": subjects.TaskSubject,
        "model": subjects.ModelSubject,
    }[kind]
    return Thing(kind, name, make(name, registry, options, context))


def _method(method: Any, options: Mapping[str, Any] | None) -> Thing:
    from peftx.testing.trial import Subject

    subject = Subject(method, options)
    return Thing("method", subject.name, subject, subject.method.known_failures)


def _row(name: str, options: Mapping[str, Any] | None, context: Any, registry: Registry) -> Thing:
    from peftx.testing.rows import RowSubject

    subject = RowSubject(name, registry, options, context)
    return Thing("row", name, subject, subject.method.known_failures)


def _plugin(domain: str, registry: Registry) -> Thing:
    from peftx.testing.subjects import PluginSubject

    return Thing("plugin", domain, PluginSubject(domain, registry))
