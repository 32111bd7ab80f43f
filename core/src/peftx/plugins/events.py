"""Run events for listeners (trackers, dashboards): a listener that fails is warned about once and never stops
a run."""

from __future__ import annotations

import warnings
from typing import Any

import pluggy

from peftx.plugins.hookspecs import EVENTS
from peftx.plugins.targets import one_line


class Events:
    """Fires the event hooks of the plugins that loaded."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._listeners = {event: tuple(getattr(manager.hook, event).get_hookimpls()) for event in EVENTS}
        self._warned: set[tuple[str, str]] = set()

    def fire(self, event: str, **arguments: Any) -> None:
        """Call every listener of `event` with the arguments it names.

        A failing listener is reported once per plugin and event by a RuntimeWarning; the others still run.
        Raises KeyError for an event that does not exist.
        """
        for listener in self._listeners[event]:
            try:
                listener.function(*(arguments[name] for name in listener.argnames))
            except Exception as error:
                key = (listener.plugin_name, event)
                if key not in self._warned:
                    self._warned.add(key)
                    warnings.warn(
                        f"plugin {listener.plugin_name}: {event} failed and is ignored ({one_line(error)})",
                        RuntimeWarning,
                        stacklevel=2,
                    )

    def listened(self, event: str) -> bool:
        """Whether anybody listens: lets a hot loop skip building metrics."""
        return bool(self._listeners[event])
