"""What `peftx predict` may ask of a task besides the files. Torch-free, so that help and mistakes cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from peftx.config.errors import problems
from peftx.config.flags import Flag, place
from peftx.config.options import options_of
from peftx.errors import ConfigError
from peftx.plugins.descriptors import TaskSpec
from peftx.plugins.registry import Entry

__all__ = ["asked_of", "flag_of", "schema_of"]


def schema_of(task: Entry[TaskSpec]) -> type[BaseModel] | None:
    """The options of `peftx predict` that a task declares; None for none."""
    if not task.spec.predict_config:
        return None
    found: type[BaseModel] = task.load("predict_config")
    return found


def asked_of(task: Entry[TaskSpec], given: Mapping[str, Any]) -> BaseModel | None:
    """Return the task's options with these values by their dotted paths, text read as in a flag; None where it takes
    none.

    Raises:
        ConfigError: it takes no options, has no such option, or refuses a value; one line for each.
    """
    schema = schema_of(task)
    if schema is None:
        if given:
            raise ConfigError(f"{flag_of(next(iter(given)))}: {task.name} takes no options to predict with")
        return None
    options = list(options_of(schema))
    values, spelled = place(
        [Flag(path, value, flag_of(path)) for path, value in given.items()], {"": options}
    )
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        known = [option.path for option in options]
        raise ConfigError("\n".join(problems(error, spelled=spelled, known=known))) from None


def flag_of(path: str) -> str:
    """How the option at a dotted path is written: ``--data.time-format``."""
    return f"--{path.replace('_', '-')}"
