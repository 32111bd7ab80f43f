"""The search for a learning rate, alike for every row: the same rates, the first seed, validation alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftx.bench.states import DIVERGED, DONE, FAILED, State

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a search came to: the rate, or in one sentence why there is none. `states`: of the runs, by rate."""

    states: Mapping[float, State]
    rate: float | None = None
    why_not: str = ""

    @property
    def open(self) -> bool:
        """Whether runs of the search are still to come."""
        return self.rate is None and not self.why_not

    @property
    def at_edge(self) -> str:
        """``smallest`` or ``largest`` where the chosen rate is that of several: a better one may lie beyond."""
        rates = sorted(self.states)
        if self.rate is None or len(rates) < 2:
            return ""
        return {rates[0]: "smallest", rates[-1]: "largest"}.get(self.rate, "")

    def to_dict(self) -> list[dict[str, Any]]:
        """For bench.json and ``--json``: what each rate came to."""
        return [
            {"rate": rate, "value": state.value, "state": state.word, "cause": state.cause}
            for rate, state in sorted(self.states.items())
        ]


def choose(states: Mapping[float, State]) -> Choice:
    """The rate with the best validation score; of equal ones that with the lower validation loss, then the smaller one.

    A rate that made training stop itself is out: that is a result. A run that failed otherwise leaves the search
    incomplete, and a rate chosen among the others would have been searched less than those of the other rows.
    """
    if not all(state.settled for state in states.values()):
        return Choice(states)
    broken = {rate: state for rate, state in sorted(states.items()) if state.word == FAILED}
    if broken:
        rate, state = next(iter(broken.items()))
        return Choice(states, why_not=f"its search is incomplete: lr={rate:g} failed ({state.cause})")
    scored = {rate: state for rate, state in states.items() if state.word == DONE and state.value is not None}
    if not scored:
        causes = [state.cause for state in states.values() if state.word == DIVERGED]
        if not causes:
            return Choice(states, why_not="its search has no validation score to choose by")
        return Choice(states, why_not=f"every rate diverged ({_first(causes)})")
    best = min(scored, key=lambda rate: _order(rate, scored[rate]))
    return Choice(states, best)


def _order(rate: float, state: State) -> tuple[float, float, float]:
    value = state.value
    assert value is not None
    loss = float("inf") if state.loss is None else state.loss
    return (-value if state.higher else value, loss, rate)


def _first(causes: Sequence[str]) -> str:
    return causes[0].partition(": try ")[0]
