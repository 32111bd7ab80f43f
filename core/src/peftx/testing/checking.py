"""`check`: judge everything a name stands for and report. It needs no pytest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from peftx.errors import UnknownNameError, near_matches
from peftx.testing.judging import Known, first_that_applies, judge, settle_known
from peftx.testing.lawbook import KINDS, Kind, Law, law_named, laws_of
from peftx.testing.report import Outcome, Report
from peftx.testing.things import Thing, things_called

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

__all__ = ["Progress", "Sitting", "check", "plan_of_check", "refuse_unknown_laws"]

#: called before each law with what is about to be judged
Progress = Callable[[str], None]


def check(
    name: Any,
    *,
    options: Mapping[str, Any] | None = None,
    laws: Collection[str] = (),
    cases: Collection[str] = (),
    fast: bool = False,
    known: Known | None = None,
    context: Any = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Report:
    """Judge a method, row, data set, task or model by its name, or a plugin's domain with all it declares.

    Args:
        name: a name; or the class of an adapter method that no plugin declares.
        options: options of the thing that differ from their defaults.
        laws: only these laws.
        cases: only these models, for a method; all of them by default.
        fast: a small choice of models in which every kind of site occurs, and slow laws on one of them.
        known: what is known to fail, ``law`` or ``(law, case)`` -> reason, beside what the thing itself declares.
        context: a `peftx.data.DataContext`, for data sets, tasks and rows; by default this process's, offline.
        progress: called with a line before each law.
        registry: where names are looked up; by default that of everything installed.

    Raises:
        UnknownNameError, PluginError: nothing is called so, no law or no case is.
    """
    outcomes: list[Outcome] = []
    for thing in things_called(name, options=options, context=context, registry=registry):
        declared = {**thing.known, **(known or {})}
        found = [one.run(progress) for one in plan_of_check(thing, laws=laws, cases=cases, fast=fast)]
        outcomes += settle_known(found, declared)
    return Report(tuple(outcomes))


@dataclass(frozen=True)
class Sitting:
    """One law to be judged on one case; empty where there is none, or where the first that fits is taken."""

    law: Law
    case: str
    run: Callable[[Progress | None], Outcome]


def plan_of_check(
    thing: Thing, *, laws: Collection[str] = (), cases: Collection[str] = (), fast: bool = False
) -> Iterator[Sitting]:
    """What is to be judged of a thing, law by law."""
    for law in _chosen_laws(thing.kind, laws):
        subjects = thing.subjects(law, cases=cases, fast=fast)
        if thing.refusal:
            reason = f"it cannot be made: {thing.refusal}"
            yield Sitting(law, "", partial(_refused, law, thing, reason))
            continue
        if law.each_case and law.cost != "fast" and fast and not cases:
            yield Sitting(law, "", partial(_first, law, thing, subjects))
            continue
        for case, subject in subjects:
            yield Sitting(law, case, partial(_one, law, thing, subject, case))


def _chosen_laws(kind: Kind, laws: Collection[str]) -> list[Law]:
    if not laws:
        return [law for law in laws_of(kind) if law.cost != "asked"]
    known = {law.name for law in laws_of(kind)}
    # a plugin's domain is checked with all it has: a law of methods is no mistake there
    return [law_named(kind, law) for law in laws if law in known]


def _one(law: Law, thing: Thing, subject: Any, case: str, progress: Progress | None) -> Outcome:
    if progress is not None:
        progress(f"{thing.name}: {law.name}" + (f" on {case}" if case else ""))
    return judge(law, subject, kind=thing.kind, name=thing.name, case=case)


def _refused(law: Law, thing: Thing, reason: str, progress: Progress | None) -> Outcome:
    return Outcome(thing.kind, thing.name, law.name, law.demands, "", "skipped", reason)


def _first(law: Law, thing: Thing, subjects: Any, progress: Progress | None) -> Outcome:
    def judged(law: Law, subject: Any, case: str) -> Outcome:
        return _one(law, thing, subject, case, progress)

    return first_that_applies(law, subjects, judged)


def refuse_unknown_laws(names: Collection[str]) -> None:
    """Raise UnknownNameError for a law that no kind of thing has."""
    known = {law.name for kind in KINDS for law in laws_of(kind)}
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"no law is called {name!r}.{near_matches(name, known)} Laws: {', '.join(sorted(known))}"
            )
