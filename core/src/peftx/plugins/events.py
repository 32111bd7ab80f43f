"""Run events for listeners (trackers, dashboards): a listener that fails is warned about once and never stops
a run.

A plugin listens with hooks, to every run. What its ``peftx_run_started`` yields or returns in a list listens to that
run alone: an object with methods named like the other events, which may so keep an open file, and is let go when the
run ends.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pluggy

from peftx.plugins.hookspecs import EVENTS
from peftx.plugins.targets import one_line

_START = "peftx_run_started"
_ENDS = ("peftx_run_finished", "peftx_run_stopped")


@dataclass(frozen=True, slots=True, eq=False)
class _Guest:
    """A listener to one run: its methods by event, with the arguments they name."""

    plugin: str
    run: Any
    methods: dict[str, tuple[Callable[..., object], tuple[str, ...]]]


class Events:
    """Fires the event hooks of the plugins that loaded."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._listeners = {event: tuple(getattr(manager.hook, event).get_hookimpls()) for event in EVENTS}
        self._guests: list[_Guest] = []
        self._warned: set[tuple[str, str]] = set()

    def fire(self, event: str, **arguments: Any) -> None:
        """Call every listener of `event` with the arguments it names.

        A failing listener is reported by a RuntimeWarning, a plugin's hook once per event, and a listener to one run
        once: it hears no more. The others still run. Raises KeyError for an event that does not exist.
        """
        run = arguments.get("run")
        for listener in self._listeners[event]:
            try:
                found = listener.function(*(arguments[name] for name in listener.argnames))
                if event == _START:
                    self._welcome(listener.plugin_name, run, found)
            except Exception as error:
                key = (listener.plugin_name, event)
                if key not in self._warned:
                    self._warned.add(key)
                    _warn(f"plugin {listener.plugin_name}: {event} failed and is ignored", error)
        for guest in [guest for guest in self._guests if guest.run is run and event in guest.methods]:
            method, names = guest.methods[event]
            try:
                method(*(arguments[name] for name in names))
            except Exception as error:
                self._guests.remove(guest)
                _warn(f"plugin {guest.plugin}: {_title(method)} failed and hears no more of this run", error)
        if event in _ENDS:
            self._guests = [guest for guest in self._guests if guest.run is not run]

    def listened(self, event: str) -> bool:
        """Whether anybody listens: lets a hot loop skip building metrics."""
        return bool(self._listeners[event]) or any(event in guest.methods for guest in self._guests)

    def _welcome(self, plugin: str, run: Any, found: Any) -> None:
        """Let what a plugin yielded at the start of a run listen to it; any other value says nothing."""
        if not isinstance(found, Iterator | list | tuple):
            return
        for listener in found:  # one by one: those before a failing one stay
            methods = {
                event: (method, tuple(inspect.signature(method).parameters))
                for event in EVENTS
                if event != _START and callable(method := getattr(listener, event, None))
            }
            if methods:
                self._guests.append(_Guest(plugin, run, methods))


def _title(method: Callable[..., object]) -> str:
    return getattr(method, "__qualname__", repr(method))


def _warn(text: str, error: Exception) -> None:
    warnings.warn(f"{text} ({one_line(error)})", RuntimeWarning, stacklevel=3)
