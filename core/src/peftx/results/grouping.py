"""Which runs may be compared: those of one task, data set and model, with all their options; and what that is called.

Options are compared after defaults were filled in, so that a run from before an option existed is beside those after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftx.results.facts import canonical
from peftx.results.index import Entry
from peftx.results.labels import Defaults, differing, flat, named

__all__ = ["Group", "group", "names", "section"]

_SECTIONS = ("task", "data", "model")

#: What sets two groups apart beside options; shown where nothing else does.
_HIDDEN = ("data.fingerprint", "model.weights")


@dataclass(slots=True)
class Group:
    """The rows that belong on one board. `settings`: options of task, data and model, with the fingerprint of the data
    and the weights of the model among them."""

    task: str
    data: str
    model: str
    settings: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)


def group(entries: Iterable[Entry], defaults: Defaults) -> list[Group]:
    """Put together what has the same task, data, model and primary metric."""
    found: dict[str, Group] = {}
    for entry in entries:
        settings = _settings(entry, defaults)
        key = canonical([entry.task, entry.data, entry.model, settings, entry.primary])
        found.setdefault(key, Group(entry.task, entry.data, entry.model, settings)).entries.append(entry)
    return list(found.values())


def names(one: Group, groups: Sequence[Group], defaults: Defaults) -> dict[str, str]:
    """Labels of a group's task, data and model, among all groups.

    A label holds the options that are not the default; where nobody knows the defaults, those that tell the group from
    others of the same name; and fingerprint or weights where the options do not tell.
    """
    return {name: _label(one, groups, defaults, name) for name in _SECTIONS}


def section(one: Group, name: str) -> dict[str, Any]:
    """The settings of one section, keys as they are (``data.limit_train``)."""
    return {key: value for key, value in one.settings.items() if key.startswith(f"{name}.")}


def _settings(entry: Entry, defaults: Defaults) -> dict[str, Any]:
    named_things = zip(_SECTIONS, (entry.task, entry.data, entry.model), strict=True)
    filled = {
        name: defaults.filled(name, thing, entry.setup.get(name, {}), entry.task)
        for name, thing in named_things
    }
    found = {key: value for key, value in flat(filled).items() if value is not None}
    return found | {"data.fingerprint": entry.fingerprint[:12], "model.weights": entry.weights}


def _label(one: Group, groups: Sequence[Group], defaults: Defaults, name: str) -> str:
    thing = getattr(one, name)
    own = section(one, name)
    same = [section(other, name) for other in groups if getattr(other, name) == thing]
    known = defaults.of(name, thing, one.task)
    usual, telling = flat({name: known or {}}), differing(same) if known is None else None

    def shown(values: Mapping[str, Any]) -> dict[str, str]:
        """What a label tells of a group's options: those of another group may be none of this one's."""
        keys = values if telling is None else telling
        told = {key: canonical(values.get(key)) for key in keys if key not in _HIDDEN}
        return {
            key: text
            for key, text in told.items()
            if telling is not None or text != canonical(usual.get(key))
        }

    keys = sorted(shown(own))
    alike = [other for other in same if shown(other) == shown(own)]
    keys += [key for key in differing(alike) if key in _HIDDEN and own.get(key)]
    return named(thing, own, keys)
