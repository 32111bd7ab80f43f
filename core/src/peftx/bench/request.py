"""What is asked of a bench: a suite, and what of it or besides it. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from peftx.config.run import Choice
from peftx.config.suite import checked_decays, checked_rates

__all__ = ["Request", "parse_budget", "parse_search"]


#: What can be searched: what a value of it is, and the check of several.
_SEARCHED = {
    "lr": ("learning rate is a number above 0", checked_rates),
    "weight_decay": ("weight decay is a number of at least 0", checked_decays),
}


class Request(BaseModel):
    """One call of a bench. What is None comes from the suite.

    `train`: settings over those of the suite. `search`: learning rates, or an empty tuple for the suite's; None
    searches none. `search_decay`: weight decays to try at each of them, likewise. `budget`: trainable parameters every
    method that has a size is brought to. `jobs`: runs at the same time; one, or on a cluster as many as it has cores
    for. `command`: how the bench was started, for the sentence that says how to go on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    methods: tuple[Choice, ...] | None = None
    data: tuple[Choice, ...] | None = None
    models: tuple[Choice, ...] | None = None
    seeds: int | None = Field(None, ge=1)
    train: dict[str, Any] = {}
    search: tuple[float, ...] | None = None
    search_decay: tuple[float, ...] | None = None
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

    @field_validator("search_decay")
    @classmethod
    def _decays(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return value and checked_decays(value)


def parse_search(text: str) -> tuple[str, tuple[float, ...]]:
    """What ``lr`` or ``lr=1e-3,1e-2`` searches, and its values (none: the suite's); likewise ``weight_decay``.

    Raises:
        ValueError: it asks for something else, or a value is none.
    """
    what, _, values = text.partition("=")
    name = what.strip().replace("-", "_")
    if name not in _SEARCHED or (not values.strip() and "=" in text):
        raise ValueError(
            "only the learning rate is searched, and with it the weight decay: write lr, lr=1e-3,1e-2 or "
            f"weight_decay=0,1e-4 (got {text})"
        )
    meant, check = _SEARCHED[name]
    found = []
    for word in values.split(",") if values else ():
        try:
            found.append(float(word))
        except ValueError:
            raise ValueError(f"a {meant} (got {word.strip() or text})") from None
    return name, check(tuple(found))


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
