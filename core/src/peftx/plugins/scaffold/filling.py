"""Templates: text with ``{{name}}`` in it, kept as files beside this one so that they ship with the package."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.resources import files

from peftx.errors import ConfigError

__all__ = ["class_name", "fill", "method_name"]

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template of that name with its blanks filled. Raises KeyError for a blank nobody fills."""
    text = files("peftx.plugins.scaffold").joinpath("templates", f"{template}.tmpl").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def method_name(name: str) -> str:
    """A method's own name, checked: it becomes a module as well.

    Raises:
        ConfigError: it is no name for a Python module in lower case.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"{name!r} cannot name a method; use lower case letters, digits and _, beginning with a letter, and no "
            "word of Python's own"
        )
    if name in ("plugin", "conftest", "test") or name.startswith("test_") or name.endswith("_config"):
        raise ConfigError(
            f"{name!r} would be the name of a module that is something else here; choose another"
        )
    return name


def class_name(name: str) -> str:
    """``low_rank`` as ``LowRank``."""
    return "".join(part.capitalize() for part in name.split("_") if part)
