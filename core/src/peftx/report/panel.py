"""A panel: one titled part of a page. Plugins bring more of them, and one that fails costs only itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peftx.plugins.registry import Registry
from peftx.plugins.targets import one_line
from peftx.report.markup import problem, tag

__all__ = ["Panel", "plugin_panels"]


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a page. `title` and `note` are plain text; `body_html` is markup, made with `peftx.report.markup`."""

    title: str
    body_html: str
    note: str = ""


def plugin_panels(registry: Registry | None, page: str, source: object) -> Iterator[Panel]:
    """The panels that plugins declare for a page (run or bench), in the order of the registry.

    One that raises, returns something else, or whose markup would break the page is a panel with the cause in a line.
    """
    for entry in registry.panels.values() if registry is not None else ():
        if entry.spec.on != page:
            continue
        try:
            found: Any = entry.load()(source)
            if found is None:
                continue
            if not isinstance(found, Panel):
                raise TypeError(f"a panel must be a peftx.report.Panel or None, not {type(found).__name__}")
            cause = problem(found.body_html)
            if cause:
                raise ValueError(f"its markup is not sound: {cause}")
            yield found
        except Exception as error:
            text = f"The panel {entry.name} of {entry.plugin.label} failed: {one_line(error)}"
            yield Panel(entry.spec.title, tag("p", text, class_="failure"))
