"""``--set OPTION=VALUE``: options of a thing that a command names alone, without a run around it. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from peftx.errors import ConfigError

__all__ = ["config_of", "parse_settings"]


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Return the options by name; values are read as JSON where they are, all else is text.

    Raises:
        ConfigError: one has no ``=`` or no name.
    """
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {text}: write OPTION=VALUE, such as --set rank=4")
        try:
            found[key.replace("-", "_")] = json.loads(value)
        except ValueError:
            found[key.replace("-", "_")] = value
    return found


def config_of(schema: type[BaseModel] | None, settings: dict[str, Any], name: str) -> BaseModel | None:
    """Return the configuration of `name` with these settings, text read as in a flag; None where it takes none.

    Raises:
        ConfigError: it takes no options, has no such option, or refuses a value; one line for each.
    """
    from peftx.config.errors import problems
    from peftx.config.options import coerce, options_of

    if schema is None:
        if settings:
            raise ConfigError(f"--set {next(iter(settings))}: {name} takes no options")
        return None
    options = {option.path: option for option in options_of(schema)}
    settings = {
        key: coerce(value, options[key]) if key in options else value for key, value in settings.items()
    }
    try:
        return schema(**settings)
    except ValidationError as error:
        spelled = {key: f"--set {key}" for key in settings}
        raise ConfigError(
            "\n".join(problems(error, spelled=spelled, known=list(schema.model_fields)))
        ) from None
