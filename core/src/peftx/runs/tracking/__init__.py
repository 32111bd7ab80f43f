"""Trackers: where else a run's curves go, chosen by ``--track``. They listen to the events of a run like anybody's.

Torch-free, because a run's configuration is checked before torch is imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from peftx.errors import PluginError, UnknownNameError, near_matches
from peftx.plugins.targets import load_target

__all__ = ["TRACKERS", "Tracker", "check", "start"]


@dataclass(frozen=True, slots=True)
class Tracker:
    """A tracker: `target` is called with the run and whether it goes on, and returns a listener to its events.

    `package`: what it imports, and the name of the extra of core that installs it.
    """

    target: str
    package: str


TRACKERS = {"tensorboard": Tracker("peftx.runs.tracking.tensorboard:TensorBoard", "tensorboard")}


def check(names: Iterable[str]) -> None:
    """Refuse trackers that cannot work, before anything is trained.

    Raises:
        UnknownNameError: there is no tracker of that name.
        PluginError: its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            hint = near_matches(name, TRACKERS) or f" Known: {', '.join(TRACKERS)}."
            raise UnknownNameError(f"--track {name}: no tracker is called {name!r}.{hint}")
        package = TRACKERS[name].package
        if importlib.util.find_spec(package) is None:
            raise PluginError(
                f"--track {name} needs the package {package}, which is not installed: "
                f"pip install 'peftx[{package}]'"
            )


def start(run: Any, resumed: bool) -> Iterator[Any]:
    """Listeners to the events of a run: a tracker for each name in its `track`."""
    for name in dict.fromkeys(run.config.track):
        yield load_target(TRACKERS[name].target)(run, resumed)
