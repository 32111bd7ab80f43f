"""Surveying a model once: planning an adapter asks for its sites several times over, and walking a model costs more
than all the rest of attaching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

__all__ = ["kept", "one_survey"]

_Survey = TypeVar("_Survey", bound=Callable[..., Any])
_answers: ContextVar[dict[Any, Any] | None] = ContextVar("peftx_survey", default=None)


@contextmanager
def one_survey() -> Iterator[None]:
    """Inside the block no model is changed, so each is surveyed once; blocks may be nested."""
    if _answers.get() is not None:
        yield
        return
    token = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(token)


def kept(survey: _Survey) -> _Survey:
    """Let a function of a model answer from memory inside `one_survey`. Its answer must not be changed by callers."""

    @wraps(survey)
    def ask(model: Any, **options: Any) -> Any:
        answers = _answers.get()
        if answers is None:
            return survey(model, **options)
        key = (survey, id(model), tuple(sorted(options.items())))
        if key not in answers:
            answers[key] = survey(model, **options)
        return answers[key]

    return ask  # type: ignore[return-value]
