"""Flags of a run: ``--a.b VALUE``, ``--a.b=VALUE``, ``--x`` / ``--no-x``, and bare names where only one
schema has them.

Parsing (what was typed) and placing (which field is meant) are two steps, because the schemas are known only
once the names among the flags are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftx.config.options import Option, coerce
from peftx.errors import ConfigError

__all__ = ["Flag", "Flags", "parse", "place", "set_path"]


_NAME = re.compile(r"\w[\w-]*(\.\w[\w-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag as typed. `value` is None when none followed; `key` has dashes turned into underscores."""

    key: str
    value: str | None
    spelled: str


@dataclass(slots=True)
class Flags:
    """Everything typed after the command: positional words and flags in order."""

    words: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)

    def pop(self, key: str) -> Flag | None:
        """Take the last flag of that name out of the list, all earlier ones with it."""
        found = [flag for flag in self.flags if flag.key == key]
        self.flags = [flag for flag in self.flags if flag.key != key]
        return found[-1] if found else None

    def switch(self, key: str) -> bool:
        """Take a flag that has no value. Raises ConfigError when it was given one."""
        flag = self.pop(key)
        if flag is not None and flag.value is not None:
            raise ConfigError(f"{flag.spelled} takes no value (got {flag.value})")
        return flag is not None

    def text(self, key: str) -> str | None:
        """Take a flag that has a value; None when it was not given. Raises ConfigError when its value is
        missing."""
        flag = self.pop(key)
        if flag is None:
            return None
        if not flag.value:
            raise ConfigError(f"{flag.spelled} needs a value")
        return flag.value


def parse(arguments: Sequence[str], switches: Collection[str] = ()) -> Flags:
    """Split arguments into words and flags. A flag takes the next argument as its value unless that is a flag
    too or the flag is one of `switches`; negative numbers are values. Raises ConfigError for a malformed
    flag."""
    found = Flags()
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if token == "--":
            found.words += rest
            break
        if not _is_flag(token):
            found.words.append(token)
            continue
        spelled, sign, value = token.partition("=")
        name = spelled[2:] if spelled.startswith("--") else ""
        key = name.replace("-", "_")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{token} is not a flag: flags read --name VALUE")
        if sign:
            found.flags.append(Flag(key, value, spelled))
        elif key in switches or not rest or _is_flag(rest[0]):
            found.flags.append(Flag(key, None, spelled))
        else:
            found.flags.append(Flag(key, rest.pop(0), spelled))
    return found


def place(
    flags: Iterable[Flag], sections: Mapping[str, Sequence[Option]], also: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, str]]:
    """Find the field each flag means and return the nested values, and how each path was spelled.

    `sections` maps a section (``method``, ``train``; ``""`` for the top level) to its options. A full path is
    looked up as it is, a bare name in every section; the top level wins. `also`: flags a command takes itself,
    which a mistyped one may have meant. Raises ConfigError listing every flag that means nothing or more than one
    thing.
    """
    fields = {f"{name}.{option.path}".lstrip("."): option for name, own in sections.items() for option in own}
    own = tuple(also)
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    wrong: list[str] = []
    for flag in flags:
        try:
            path, value = _meaning(flag, fields, own)
        except ConfigError as error:
            wrong.append(str(error))
            continue
        if path in spelled and fields[path].is_list:
            value = [*_get(values, path), *value]
        set_path(values, path, value)
        spelled[path] = flag.spelled
    if wrong:
        raise ConfigError("\n".join(dict.fromkeys(wrong)))
    return values, spelled


def set_path(table: dict[str, Any], path: str, value: Any) -> None:
    """Set ``table["a"]["b"]`` for the path ``a.b``, making tables on the way."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = table.get(parent)
        if not isinstance(inner, dict):
            inner = table[parent] = {}
        table = inner
    table[last] = value


def _meaning(flag: Flag, fields: Mapping[str, Option], also: Sequence[str]) -> tuple[str, Any]:
    path = _find(flag, flag.key, fields)
    if path is not None:
        option = fields[path]
        if flag.value is not None:
            return path, coerce(flag.value, option)
        if option.is_bool:
            return path, True
        raise ConfigError(f"{flag.spelled} needs a value")
    head, dot, last = flag.key.rpartition(".")
    if last.startswith("no_") and flag.value is None:
        path = _find(flag, head + dot + last[3:], fields)
        if path is not None and fields[path].is_bool:
            return path, False
    raise ConfigError(f"{flag.spelled}: no such option.{_suggest(flag, fields, also)}")


def _find(flag: Flag, key: str, fields: Mapping[str, Option]) -> str | None:
    if key in fields:
        return key
    found = [path for path in fields if path.partition(".")[2] == key]
    if len(found) > 1:
        ways = ", ".join(f"--{_dashed(path)}" for path in found)
        raise ConfigError(f"{flag.spelled} is ambiguous: write {ways}")
    return found[0] if found else None


def _suggest(flag: Flag, fields: Mapping[str, Option], also: Sequence[str]) -> str:
    names = [path if "." in flag.key else path.partition(".")[2] or path for path in fields]
    close = difflib.get_close_matches(flag.key, list(dict.fromkeys([*names, *also])), n=3)
    return f" Did you mean {', '.join(f'--{_dashed(name)}' for name in close)}?" if close else ""


def _dashed(path: str) -> str:
    return path.replace("_", "-")


def _is_flag(token: str) -> bool:
    return token.startswith("-") and len(token) > 1 and not token[1].isdigit() and token[1] != "."


def _get(table: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        table = table[part]
    return table
