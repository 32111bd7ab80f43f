"""What a pydantic schema says about one option: its flag, type, default and help, and how text becomes its
value.

Flags and TOML share this file: a string in either is read the same way, everything else is left to pydantic.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["Option", "coerce", "options_of"]

_LISTS = (list, tuple, set, frozenset)
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a schema. `path` is dotted inside nested models."""

    path: str
    annotation: Any
    default: Any
    required: bool
    help: str
    bounds: str

    @property
    def is_bool(self) -> bool:
        """Whether `--x` and `--no-x` alone set it."""
        return bool in _members(self.annotation)

    @property
    def is_list(self) -> bool:
        """Whether several values are gathered."""
        return any(_origin(member) in _LISTS for member in _members(self.annotation))

    @property
    def is_dict(self) -> bool:
        """Whether it maps keys to values."""
        return any(_origin(member) is dict for member in _members(self.annotation))

    @property
    def optional(self) -> bool:
        """Whether it may be none."""
        return type(None) in _members(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a Literal, as one writes them."""
        return tuple(self.literals)

    @property
    def literals(self) -> dict[str, Any]:
        """The values of a Literal (words, numbers) by how one writes them."""
        members = [member for member in _members(self.annotation) if _origin(member) is Literal]
        return {show(value): value for member in members for value in get_args(member)}

    @property
    def type_label(self) -> str:
        """A short word for the help: ``INT``, ``FLOAT``, ``a|b``, ``LIST`` ..."""
        if self.choices:
            return "|".join(self.choices)
        if self.is_bool:
            return ""
        if self.is_list:
            return "A,B,..."
        if self.is_dict:
            return "KEY=VALUE,..."
        words = [_word(member) for member in _members(self.annotation) if member is not type(None)]
        return "|".join(dict.fromkeys(words))

    @property
    def default_text(self) -> str:
        """The default as one would write it on the command line; nothing where the help says what None or the
        absence of a switch means."""
        if self.required:
            return "required"
        return "" if self.default is None or self.default is False else show(self.default)


def show(value: Any) -> str:
    """Write a value the way a flag takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(show(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={show(item)}" for key, item in value.items()) or "none"
    return str(value)


def options_of(schema: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    """Yield every option of a schema, nested models flattened with dotted paths."""
    for name, info in schema.model_fields.items():
        nested = _nested(info.annotation)
        if nested is not None:
            yield from options_of(nested, f"{prefix}{name}.")
            continue
        yield Option(
            path=prefix + name,
            annotation=info.annotation,
            default=_default(info),
            required=info.is_required(),
            help=info.description or "",
            bounds=_bounds(info),
        )


def coerce(value: Any, option: Option) -> Any:
    """Turn text into what the option's type suggests; what is not text, or needs no help, is returned as it
    is.

    ``none`` is None where None is allowed, and empty for a list or mapping. A list is split at commas outside
    brackets, or read as JSON; a mapping is ``key=value,...`` or JSON; one of a few values is that value, a number as
    well. pydantic then validates.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if option.is_list:
        if text.lower() in ("none", ""):
            return []
        return _json(text, list, split_outside_brackets(text))
    if option.is_dict:
        if text.lower() in ("none", ""):
            return {}
        pairs = [part.rpartition("=") for part in split_outside_brackets(text)]
        plain = {key.strip(): item.strip() for key, sign, item in pairs if sign}
        return _json(text, dict, plain if len(plain) == len(pairs) else value)
    if option.optional and text.lower() == "none":
        return None
    # pydantic reads "1" as the number where a number is expected, and not where one of a few is
    return option.literals.get(text, value)


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas that stand in no bracket, so that ``re:a{1,2}`` stays whole."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _json(text: str, expected: type, otherwise: Any) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return otherwise
    return found if isinstance(found, expected) else otherwise


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _origin(annotation: Any) -> Any:
    return get_origin(annotation) or annotation


def _nested(annotation: Any) -> type[BaseModel] | None:
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _default(info: FieldInfo) -> Any:
    value = info.get_default(call_default_factory=True, validated_data={})
    return None if value is PydanticUndefined else value


def _word(annotation: Any) -> str:
    names = {"str": "TEXT", "int": "INT", "float": "FLOAT", "Path": "PATH"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name.upper())


def _bounds(info: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(rule, word)}"
        for rule in info.metadata
        for word, sign in _BOUNDS.items()
        if isinstance(getattr(rule, word, None), int | float)
    ]
    return " and ".join(found)
