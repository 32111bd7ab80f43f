"""`Law`: a plain function with a name and one sentence of what it demands.

A law takes what it is about (a method on a case, a row to compare with, a data set, a task, a model, a plugin) and
returns when it holds. It raises `LawError` with a sentence of what was seen when it does not, and `NotApplicable` with
the reason when there is nothing to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from peftx.errors import UnknownNameError, near_matches

__all__ = ["Kind", "Law", "LawError", "NotApplicable", "demand", "law", "law_named", "laws_of"]

#: A method attaches to a model; a row is a method that brings a model of its own, to compare with.
Kind = Literal["method", "row", "data set", "task", "model", "plugin"]
KINDS: tuple[Kind, ...] = ("method", "row", "data set", "task", "model", "plugin")


class LawError(AssertionError):
    """A law does not hold; the message says what was seen."""


class NotApplicable(Exception):
    """There is nothing to judge here; the message says why."""


@dataclass(frozen=True)
class Law:
    """A law of one kind of thing.

    `each_case`: judged on every case, not once. `needs`: laws whose failure explains this one's; where one of them
    fails as well, this one is not held against the thing. `cost`: ``"fast"``, ``"slow"`` (left to the first case that
    it can be judged on when time is short) or ``"asked"`` (runs only when it is named).
    """

    name: str
    demands: str
    kind: Kind
    judge: Callable[[Any], None]
    each_case: bool = False
    needs: tuple[str, ...] = ()
    cost: Literal["fast", "slow", "asked"] = "fast"

    def __call__(self, subject: Any) -> None:
        self.judge(subject)

    def __str__(self) -> str:
        return self.name


_LAWS: dict[tuple[Kind, str], Law] = {}


def law(
    kind: Kind,
    *,
    each_case: bool = False,
    needs: Iterable[str] = (),
    cost: Literal["fast", "slow", "asked"] = "fast",
) -> Callable[[Callable[[Any], None]], Law]:
    """Make a function the law of its own name; the first line of its docstring is what it demands."""

    def enter(judge: Callable[[Any], None]) -> Law:
        demands = (judge.__doc__ or "").strip().partition("\n")[0]
        made = Law(judge.__name__, demands, kind, judge, each_case, tuple(needs), cost)
        _LAWS[kind, made.name] = made
        return made

    return enter


def laws_of(kind: Kind) -> tuple[Law, ...]:
    """Every law of a kind of thing, in the order they are judged."""
    from peftx.testing.laws import ORDER

    own = [one for (of, _), one in _LAWS.items() if of == kind]
    return tuple(sorted(own, key=lambda one: ORDER.index(one.judge.__module__.rpartition(".")[2])))


def law_named(kind: Kind, name: str) -> Law:
    """The law of that name.

    Raises:
        UnknownNameError: there is none for this kind of thing.
    """
    known = {one.name: one for one in laws_of(kind)}
    if name not in known:
        raise UnknownNameError(
            f"there is no law {name!r} for a {kind}.{near_matches(name, known)} Laws: {', '.join(known)}"
        )
    return known[name]


def demand(condition: Any, seen: str) -> None:
    """Raise `LawError` with what was seen unless the condition holds."""
    if not condition:
        raise LawError(seen)
