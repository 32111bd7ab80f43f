"""Who has what: names to descriptors, and the three different errors when a name leads nowhere.

A name may be full (``core.lora``) or bare (``lora``) when only one plugin has it. A name that cannot be
resolved is unknown (near matches), of a pack that is not installed (the pip command), or of a plugin that did
not load (its cause).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from peftx.errors import ConfigError, PluginError, UnknownNameError, near_matches
from peftx.plugins.catalogue import CATALOGUE, Pack, pack_of
from peftx.plugins.descriptors import (
    CommandSpec,
    DatasetSpec,
    KernelSpec,
    MethodSpec,
    ModelSpec,
    PanelSpec,
    Spec,
    SuiteSpec,
    TaskSpec,
)
from peftx.plugins.events import Events
from peftx.plugins.loader import Loaded, PluginInfo
from peftx.plugins.targets import load_target
from peftx.plugins.validation import new_manager

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class Entry(Generic[S]):
    """One declared thing and the plugin it comes from; `argument` is what stood after the colon of its
    name."""

    spec: S
    plugin: PluginInfo
    argument: str = ""

    @property
    def name(self) -> str:
        """The full name."""
        return self.spec.name

    @property
    def domain(self) -> str:
        """The plugin's domain."""
        return self.plugin.domain

    def load(self, attribute: str = "target") -> Any:
        """Import what the descriptor's `attribute` names (``target``, ``config``, ``averages``, ...)."""
        return load_target(getattr(self.spec, attribute), self.plugin.distribution)


class Registry:
    """Everything the loaded plugins declare, in the order they declare it."""

    def __init__(self, loaded: list[Loaded]) -> None:
        self.plugins: list[PluginInfo] = [one.info for one in loaded]
        self.methods: Mapping[str, Entry[MethodSpec]] = _table(loaded, MethodSpec)
        self.tasks: Mapping[str, Entry[TaskSpec]] = _table(loaded, TaskSpec)
        self.datasets: Mapping[str, Entry[DatasetSpec]] = _table(loaded, DatasetSpec)
        self.models: Mapping[str, Entry[ModelSpec]] = _table(loaded, ModelSpec)
        self.suites: Mapping[str, Entry[SuiteSpec]] = _table(loaded, SuiteSpec)
        self.commands: Mapping[str, Entry[CommandSpec]] = _table(loaded, CommandSpec)
        self.panels: Mapping[str, Entry[PanelSpec]] = _table(loaded, PanelSpec)
        # Not a table by name: several plugins may implement one op, and a plugin may implement several ops.
        self.kernels: list[Entry[KernelSpec]] = _entries(loaded, KernelSpec)
        manager = new_manager()
        for one in loaded:
            if one.module is not None and not manager.is_registered(one.module):
                manager.register(one.module, name=one.info.domain)
        self.events = Events(manager)

    @property
    def domains(self) -> list[str]:
        """Domains of the plugins that loaded, core first."""
        return [info.domain for info in self.plugins if info.status == "ok"]

    def missing_packs(self) -> list[Pack]:
        """First-party packs with no plugin installed under their domain."""
        present = {info.domain for info in self.plugins}
        return [pack for pack in CATALOGUE.values() if pack.domain not in present]

    def resolve_method(self, name: str, domain: str = "") -> Entry[MethodSpec]:
        """Return the method called `name`. Raises UnknownNameError or PluginError."""
        return self._resolve("method", self.methods, name, domain)

    def resolve_task(self, name: str, domain: str = "") -> Entry[TaskSpec]:
        """Return the task called `name`; a domain alone means its first task."""
        if "." not in name:
            first = next((entry for entry in self.tasks.values() if entry.domain == name), None)
            if first is not None:
                return first
            if name in self.domains:
                raise UnknownNameError(f"domain {name} has methods but no task; name a task with --task")
        return self._resolve("task", self.tasks, name, domain)

    def resolve_dataset(self, name: str, domain: str = "") -> Entry[DatasetSpec]:
        """Return the data set called `name` or by one of its aliases, the given domain's first.

        ``name:argument`` returns an entry with that argument. Raises ConfigError when a data set that takes
        an argument got none or the other way round.
        """
        bare, colon, argument = name.partition(":")
        names = dict(self.datasets)
        for entry in self.datasets.values():
            names |= {f"{entry.domain}.{alias}": entry for alias in entry.spec.aliases}
        entry = self._resolve("data set", names, bare, domain, known=self.datasets)
        if entry.spec.parametric and not argument:
            raise ConfigError(f"data set {bare} needs a path: write {bare}:PATH")
        if colon and not entry.spec.parametric:
            raise ConfigError(
                f"data set {bare} takes no argument (got {argument!r} after the colon): write {bare}"
            )
        return replace(entry, argument=argument)

    def resolve_model(self, name: str, domain: str = "") -> Entry[ModelSpec]:
        """Return the model called `name`, the given domain's first."""
        return self._resolve("model", self.models, name, domain)

    def resolve_suite(self, name: str, domain: str = "") -> Entry[SuiteSpec]:
        """Return the suite called `name`, the given domain's first."""
        return self._resolve("suite", self.suites, name.replace("/", "."), domain)

    def refuse_unloaded(self, name: str) -> None:
        """Raise PluginError when `name` (full, a domain, or a bare name a first-party pack is known to bring)
        belongs to a plugin that did not load, or to a known pack that is not installed; return otherwise."""
        pack = pack_of(name)
        domain = pack.domain if pack else name.partition(".")[0]
        own = [info for info in self.plugins if info.domain == domain]
        if own and domain not in self.domains:
            raise PluginError(f"{name}: {_failure(own)}")
        if pack is not None and not own:
            raise PluginError(
                f"{name} belongs to the pack {pack.domain}, which is not installed: {pack.how_to_get()}"
            )

    def _resolve(
        self,
        kind: str,
        table: Mapping[str, Entry[S]],
        name: str,
        domain: str = "",
        known: Mapping[str, Entry[S]] | None = None,
    ) -> Entry[S]:
        if name in table:
            return table[name]
        if name and "." not in name:
            if f"{domain}.{name}" in table:
                return table[f"{domain}.{name}"]
            same = {entry.name: entry for full, entry in table.items() if full.partition(".")[2] == name}
            if len(same) == 1:
                return next(iter(same.values()))
            if same:
                raise UnknownNameError(f"{kind} {name} is ambiguous: {', '.join(same)}; write the full name")
        self.refuse_unloaded(name)
        names = list(table if known is None else known)
        hint = near_matches(name, table) or _listing(names)
        raise UnknownNameError(f"no {kind} is called {name!r}.{hint}{self._failed_note(name)}")

    def _failed_note(self, name: str) -> str:
        """A bare name may well live in a plugin that did not load: say so."""
        failed = [info.domain for info in self.plugins if info.status not in ("ok", "blocked")]
        if "." in name or not failed:
            return ""
        return f" (Not loaded: {', '.join(dict.fromkeys(failed))}; see `peftx plugins`.)"


def _table(loaded: list[Loaded], kind: type[S]) -> dict[str, Entry[S]]:
    return {entry.name: entry for entry in _entries(loaded, kind)}


def _entries(loaded: list[Loaded], kind: type[S]) -> list[Entry[S]]:
    return [Entry(spec, one.info) for one in loaded if one.contribution for spec in one.contribution.of(kind)]


def _failure(failed: list[PluginInfo]) -> str:
    info = failed[0]
    if info.status == "conflict":
        return f"not loaded, {info.cause}"
    if info.status == "blocked":
        return f"plugin {info.domain} ({info.label}) is {info.cause}"
    return f"plugin {info.domain} ({info.label}) did not load: {info.cause}"


def _listing(names: list[str], most: int = 20) -> str:
    if not names:
        return " None is installed; see `peftx list`."
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f" Known: {', '.join(names[:most])}{more}."
