"""What came of judging: one `Outcome` for each law and case, and the `Report` of them all. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from peftx.report.table import Column, Table

__all__ = ["Outcome", "Report", "State"]

State = Literal["passed", "failed", "known", "mended", "skipped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One law judged on one thing. `state`:

    passed    the law holds
    failed    it does not; `message` is what was seen
    known     it does not, and the thing declares so; `message` holds the reason and what was seen
    mended    declared as a known failure, but it holds
    skipped   nothing to judge; `message` says why
    """

    kind: str
    name: str
    law: str
    demands: str
    case: str
    state: State
    message: str = ""
    seconds: float = 0.0
    trace: str = ""

    @property
    def place(self) -> str:
        """``"law on case"``."""
        return f"{self.law} on {self.case}" if self.case else self.law

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the traceback."""
        found = asdict(self)
        del found["trace"]
        found["seconds"] = round(self.seconds, 4)
        return found


def _text(value: Any) -> str:
    return str(value)


@dataclass(frozen=True, slots=True)
class Report:
    """All outcomes of a check, in the order they came."""

    outcomes: tuple[Outcome, ...]

    def __add__(self, other: Report) -> Report:
        return Report(self.outcomes + other.outcomes)

    def of(self, *states: State) -> tuple[Outcome, ...]:
        """The outcomes in one of these states."""
        return tuple(one for one in self.outcomes if one.state in states)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """What has to be mended: failures, and known failures that are none any more."""
        return self.of("failed", "mended")

    @property
    def broken_laws(self) -> tuple[str, ...]:
        """Names of the laws that fail, without repeats."""
        return tuple(dict.fromkeys(one.law for one in self.of("failed")))

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something was judged."""
        return not self.failed and bool(self.of("passed", "known"))

    @property
    def verdict(self) -> str:
        """One line: how many judgements came out how, and what that means."""
        counts = ", ".join(f"{len(self.of(state))} {state}" for state in _STATES if self.of(state))
        if self.failed:
            return f"{counts}: {', '.join(dict.fromkeys(one.law for one in self.failed))} to be mended"
        return f"{counts}: {'every law that could be judged holds' if self.ok else 'nothing could be judged'}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "ok": self.ok,
            "counts": {
                state: len(self.of(state)) for state in ("passed", "failed", "known", "skipped", "mended")
            },
            "outcomes": [one.to_dict() for one in self.outcomes],
        }

    def table(self) -> Table:
        """One row a law: on how many cases it came out how, and how long that took."""
        rows = []
        for (kind, name, law), outcomes in self._by_law().items():
            counts = {state: sum(one.state == state for one in outcomes) for state in _STATES}
            row: dict[str, Any] = {
                "thing": f"{name} ({kind})",
                "law": law,
                "outcome": _outcome(counts),
                **{state: counts[state] or None for state in _STATES},
                "seconds": sum(one.seconds for one in outcomes),
            }
            rows.append(row)
        shown = [state for state in _STATES if state == "passed" or any(row[state] for row in rows)]
        columns = [Column(key, key, _text, left=True) for key in ("thing", "law", "outcome")]
        columns += [Column(state, state, _text) for state in shown]
        return Table([*columns, Column("seconds", "seconds", "{:.2f}".format)], rows)

    def sentences(self) -> list[str]:
        """What did not simply pass, one line each; skipped cases with the same reason share one."""
        found = [f"{one.state.upper()}  {one.name}: {one.place}: {one.message}" for one in self.failed]
        found += [f"known   {one.name}: {one.place}: {one.message}" for one in self.of("known")]
        reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
        for one in self.of("skipped"):
            reasons.setdefault((one.name, one.message), {}).setdefault(one.case, []).append(one.law)
        for (name, reason), cases in reasons.items():
            found.append(f"skipped {name}: {_where(cases)}: {reason}")
        return found

    def render(self) -> str:
        """The table, and below it what did not simply pass."""
        return "\n".join([self.table().render(), *([""] if self.sentences() else []), *self.sentences()])

    def _by_law(self) -> Mapping[tuple[str, str, str], list[Outcome]]:
        found: dict[tuple[str, str, str], list[Outcome]] = {}
        for one in self.outcomes:
            found.setdefault((one.kind, one.name, one.law), []).append(one)
        return found


_STATES: tuple[State, ...] = ("passed", "failed", "known", "mended", "skipped")


def _outcome(counts: Mapping[State, int]) -> str:
    if counts["failed"]:
        return "FAILED"
    if counts["mended"]:
        return "MENDED"
    return next((state for state in ("known", "passed") if counts[state]), "skipped")  # type: ignore[index]


def _where(cases: Mapping[str, Iterable[str]]) -> str:
    if "" in cases:
        return ", ".join(law for laws in cases.values() for law in laws)
    laws = {tuple(found) for found in cases.values()}
    names = ", ".join(cases) if len(cases) <= 6 else f"{len(cases)} cases"
    if len(laws) == 1:
        (one,) = laws
        return f"{one[0]} on {names}" if len(one) == 1 else f"{len(one)} laws on {names}"
    return f"on {names}"
