"""``"module:object"`` strings: their shape, checked when a plugin loads, and their import, on first use."""

from __future__ import annotations

import importlib
import re
from typing import Any

from peftx.errors import PluginError, UserError

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def is_target(text: object) -> bool:
    """Say whether `text` reads ``"package.module:object"``."""
    return isinstance(text, str) and _TARGET.fullmatch(text) is not None


def one_line(error: BaseException) -> str:
    """Return ``"Type: message"`` of an exception on one line, short enough for a table cell."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= 240 else text[:237] + "..."


def load_target(target: str, owner: str = "") -> Any:
    """Import ``"module:object"`` and return the object.

    `owner` (a distribution's name) goes into the message. Raises PluginError when the string is malformed,
    the module cannot be imported or has no such object; a UserError raised by the module itself passes
    through.
    """
    whose = f" of {owner}" if owner else ""
    if not is_target(target):
        raise PluginError(f"target {target!r}{whose} is malformed: write 'package.module:object'")
    module_name, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except UserError:
        raise
    except Exception as error:
        raise PluginError(f"cannot load {target}{whose}: {one_line(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise PluginError(f"cannot load {target}{whose}: {module_name} has no {path}") from None
    return found
