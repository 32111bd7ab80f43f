"""What is asked of a bench: a suite, and what of it or besides it. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from peftx.config.run import Choice
from peftx.config.suite import checked_rates

__all__ = ["Request", "parse_budget", "parse_search"]


class Request(BaseModel):
    """One call of a bench. What is None comes from the suite.

    `train`: settings over those of the suite. `search`: learning rates, or an empty tuple for the suite's; None
    searches none. `budget`: trainable parameters every method that has a size is brought to. `jobs`: runs at the same
    time; one, or on a cluster as many as it has cores for. `command`: how the bench was started, for the sentence that
    says how to go on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    methods: tuple[Choice, ...] | None = None
    data: tuple[Choice, ...] | None = None
    models: tuple[Choice, ...] | None = None
    seeds: int | None = Field(None, ge=1)
    train: dict[str, Any] = {}
    search: tuple[float, ...] | None = None
    budget: int | None = Field(None, ge=1)
    device: str = "auto"
    precision: str = "fp32"
    efficiency: bool = True
    best_on_test: bool = False
    offline: bool = False
    data_root: Path | None = None
    out: Path | None = None
    resume: bool = False
    jobs: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    executor: Literal["local", "ray"] = "local"
    published: bool = False
    disabled: tuple[str, ...] = ()
    command: str = "the same command"

    @field_validator("search")
    @classmethod
    def _rates(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return value and checked_rates(value)


def parse_search(text: str) -> tuple[float, ...]:
    """The rates of ``lr`` (none: the suite's) or ``lr=1e-3,1e-2``.

    Raises:
        ValueError: it asks for something else, or a rate is not a number above 0.
    """
    what, _, rates = text.partition("=")
    if what.strip() != "lr" or (not rates.strip() and "=" in text):
        raise ValueError(f"only the learning rate is searched: write lr, or lr=1e-3,1e-2 (got {text})")
    found = []
    for word in rates.split(",") if rates else ():
        try:
            found.append(float(word))
        except ValueError:
            raise ValueError(f"a learning rate is a number above 0 (got {word.strip() or text})") from None
    return checked_rates(tuple(found))


def parse_budget(text: str) -> int:
    """The number in ``params=50000``; ``_`` and ``k``, ``M`` may be used.

    Raises:
        ValueError: it is no such number.
    """
    what, _, number = text.partition("=")
    number = number.strip()
    factor = {"k": 1_000, "K": 1_000, "M": 1_000_000}.get(number[-1:], 1)
    try:
        if what.strip() != "params":
            raise ValueError
        budget = round(float(number[:-1] if factor > 1 else number) * factor)
    except (ValueError, OverflowError):
        raise ValueError(
            f"a budget is a number of trainable parameters: write params=50000 or params=50k (got {text})"
        ) from None
    if budget < 1:
        raise ValueError(f"a budget is at least one trainable parameter (got {text})")
    return budget
