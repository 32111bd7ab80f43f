"""What every configuration keeps: no torch, JSON there and back, a description for each option."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from pydantic import BaseModel, ValidationError

from peftx.testing.fresh import imports_torch
from peftx.testing.lawbook import LawError, demand

__all__ = ["check_options"]


def check_options(cls: Any, make: Callable[[], Any], *, inherited: Collection[str] = ()) -> None:
    """Raise `LawError` for a configuration class that is heavy, loses something in JSON, or explains nothing."""
    demand(
        isinstance(cls, type) and issubclass(cls, BaseModel),
        f"the configuration is {cls!r}, expected a pydantic model",
    )
    made = make()
    try:
        text = json.dumps(made.model_dump(mode="json", exclude_unset=False))
    except Exception as error:
        raise LawError(f"the configuration cannot be written as JSON: {error}") from error
    try:
        again = cls(**json.loads(text))
    except ValidationError as error:
        raise LawError(
            f"the configuration refuses its own JSON: {error.errors(include_url=False)[0]['msg']}"
        ) from error
    demand(again == made, f"the configuration read from its own JSON is {again!r}, written was {made!r}")
    bare = [
        name for name, field in cls.model_fields.items() if name not in inherited and not field.description
    ]
    demand(not bare, f"the option {bare[0] if bare else ''} has no description, so its help would be empty")
    demand(not imports_torch(cls.__module__), f"importing {cls.__module__} imports torch")
    try:
        cls(no_such_option=1)
    except ValidationError:
        return
    raise LawError("an option that does not exist is accepted; set extra='forbid' in its model_config")
