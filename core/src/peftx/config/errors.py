"""pydantic's complaints as sentences a user can act on: ``--train.lr: must be greater than 0 (got -1)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from peftx.errors import ConfigError, near_matches

__all__ = ["as_config_error", "problems"]

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table of key=value",
    "model_type": "must be a table",
    "finite_number": "must be finite",
}
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def problems(
    error: ValidationError,
    *,
    prefix: str = "",
    spelled: Mapping[str, str] | None = None,
    known: Iterable[str] = (),
) -> list[str]:
    """One sentence per problem of `error`, without repeats.

    `prefix` is the section (``method``); `spelled` maps a dotted path to how the user wrote it; `known` are
    the paths an unknown key is compared with.
    """
    spelled = spelled or {}
    known = list(known)
    found: list[str] = []
    for problem in error.errors(include_url=False):
        path = ".".join([prefix, *_steps(problem)]) if prefix else ".".join(_steps(problem))
        name = _spelling(path, spelled)
        found.append(f"{name}: {_sentence(problem, path, known)}")
    return list(dict.fromkeys(found))


def as_config_error(error: ValidationError, **options: Any) -> ConfigError:
    """Return a ConfigError that lists every problem, one a line."""
    return ConfigError("\n".join(problems(error, **options)))


def _steps(problem: Any) -> list[str]:
    # Branches of a union appear in the location under made-up names such as "int" or "list[str]"; they are no
    # keys.
    return [str(part) for part in problem["loc"] if not _is_branch(str(part))]


def _is_branch(part: str) -> bool:
    return part in ("int", "float", "str", "bool", "none") or "[" in part or part.startswith("function-")


def _spelling(path: str, spelled: Mapping[str, str]) -> str:
    while path:
        if path in spelled:
            return spelled[path]
        shorter = path.rpartition(".")[0]
        if not shorter or shorter not in spelled:
            break
        path = shorter
    return f"--{path.replace('_', '-')}"


def _sentence(problem: Any, path: str, known: list[str]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        last = path.rpartition(".")[2]
        return f"no such option.{near_matches(last, known)}"
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        text = str(context.get("error", problem["msg"]))
        if isinstance(problem["input"], Mapping):  # a law between options: which ones, the text says
            return text
    elif kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        text = f"{words} {context[key]:g}" if isinstance(context[key], float) else f"{words} {context[key]}"
    elif kind == "literal_error":
        text = f"must be one of {str(context['expected']).replace(' or ', ', ').replace(chr(39), '')}"
    elif kind == "string_pattern_mismatch":
        text = f"must match {context['pattern']}"
    else:
        text = _WORDS.get(kind, problem["msg"][:1].lower() + problem["msg"][1:])
    return f"{text} (got {_given(problem['input'])})"


def _given(value: Any) -> str:
    text = value if isinstance(value, str) and value and " " not in value else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
