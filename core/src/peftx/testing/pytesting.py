"""The laws as pytest tests: a class to subclass for one thing, a decorator for many. The only file that knows pytest,
and it imports it when tests are collected, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from peftx.testing.cases import FAST
from peftx.testing.checking import plan_of_check
from peftx.testing.judging import Known, reason_for
from peftx.testing.lawbook import Kind
from peftx.testing.report import Outcome
from peftx.testing.things import Thing, things_called

__all__ = [
    "DatasetLaws",
    "MethodLaws",
    "ModelLaws",
    "PluginLaws",
    "RowLaws",
    "TaskLaws",
    "parametrize_method_laws",
    "settle",
]

Judge = Callable[[], Outcome]


@dataclass(frozen=True)
class Planned:
    """One test: its label, what it runs, why it is known to fail, and whether passing would then be a failure of the
    list (so it is for one case; a whole law may hold on some)."""

    label: str
    judge: Judge
    reason: str
    strict: bool


class _Laws:
    """One test for each law, and for methods one for each law and case."""

    kind: ClassVar[Kind]
    #: options of the thing that differ from their defaults
    options: ClassVar[Mapping[str, Any]] = {}
    #: only these laws; all but those that have to be asked for by default
    laws: ClassVar[Collection[str]] = ()
    #: what is known to fail: law, or (law, case) -> reason
    known: ClassVar[Known] = {}

    def _thing(self) -> Thing:
        raise NotImplementedError

    def _plan(self) -> Iterator[Planned]:
        yield from _planned(self._thing(), self.known, self.laws, self._cases())

    def _cases(self) -> dict[str, Any]:
        return {}

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest: make the tests of this class."""
        if "judged" in metafunc.fixturenames:
            metafunc.parametrize("judged", _parameters(self._plan()))

    def test_law(self, judged: Judge) -> None:
        """Judge one law."""
        settle(judged())


class MethodLaws(_Laws):
    """Subclass it with the name of your method:

        class TestScale(MethodLaws):
            method = "mine.scale"

    `method` may also be a class that no plugin declares. `cases` are the names of the models to run on; by default a
    small choice in which every kind of site occurs.
    """

    kind: ClassVar[Kind] = "method"
    method: ClassVar[Any]
    cases: ClassVar[Collection[str]] = FAST

    def _thing(self) -> Thing:
        return _of_kind(self.kind, self.method, self.options)

    def _cases(self) -> dict[str, Any]:
        fast = tuple(self.cases) == FAST
        return {"fast": True} if fast else {"cases": tuple(self.cases)}


class RowLaws(_Laws):
    """Subclass it with `row`, the name of your method of kind *model*."""

    kind: ClassVar[Kind] = "row"
    row: ClassVar[str]
    #: a `peftx.data.DataContext` for the data of its tasks; by default this process's own, offline
    context: ClassVar[Any] = None

    def _thing(self) -> Thing:
        return _of_kind(self.kind, self.row, self.options, self.context)


class DatasetLaws(_Laws):
    """Subclass it with `dataset`, the name of your data set."""

    kind: ClassVar[Kind] = "data set"
    dataset: ClassVar[str]
    #: a `peftx.data.DataContext`; by default this process's own, offline
    context: ClassVar[Any] = None

    def _thing(self) -> Thing:
        return _of_kind(self.kind, self.dataset, self.options, self.context)


class TaskLaws(_Laws):
    """Subclass it with `task`, the name of your task."""

    kind: ClassVar[Kind] = "task"
    task: ClassVar[str]

    def _thing(self) -> Thing:
        return _of_kind(self.kind, self.task, self.options)


class ModelLaws(_Laws):
    """Subclass it with `model`, the name of your model."""

    kind: ClassVar[Kind] = "model"
    model: ClassVar[str]

    def _thing(self) -> Thing:
        return _of_kind(self.kind, self.model, self.options)


class PluginLaws(_Laws):
    """Subclass it with `domain`, the domain of your plugin."""

    kind: ClassVar[Kind] = "plugin"
    domain: ClassVar[str]

    def _thing(self) -> Thing:
        return _of_kind(self.kind, self.domain, {})


def parametrize_method_laws(
    methods: Collection[Any],
    *,
    options: Mapping[str, Any] | None = None,
    laws: Collection[str] = (),
    cases: Collection[str] = (),
    known: Known | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrise a test function over the laws of several methods; it takes ``judged`` and hands it to `settle`:

    @parametrize_method_laws(["mine.scale", "mine.shift"])
    def test_laws(judged):
        settle(judged())
    """
    import pytest

    def plan() -> Iterator[Planned]:
        for method in methods:
            thing = _of_kind("method", method, options or {})
            chosen = {"cases": cases} if cases else {"fast": True}
            for one in _planned(thing, known or {}, laws, chosen):
                yield replace(one, label=f"{thing.name}-{one.label}")

    return pytest.mark.parametrize("judged", _parameters(plan()))


def settle(outcome: Outcome) -> None:
    """Turn an outcome into pytest's: pass, fail with what was seen, or skip with the reason."""
    import pytest

    if outcome.state == "failed":
        pytest.fail(f"{outcome.place}: {outcome.message}\nThe law: {outcome.demands}", pytrace=False)
    if outcome.state == "skipped":
        pytest.skip(outcome.message)


def _of_kind(kind: Kind, name: Any, options: Mapping[str, Any], context: Any = None) -> Thing:
    return next(
        thing for thing in things_called(name, options=options, context=context) if thing.kind == kind
    )


def _planned(
    thing: Thing, known: Known, laws: Collection[str], cases: Mapping[str, Any]
) -> Iterator[Planned]:
    declared = {**thing.known, **known}
    for one in plan_of_check(thing, laws=laws, **cases):
        law, case = one.law.name, one.case
        yield Planned(
            label=f"{law}-{case}" if case else law,
            judge=partial(one.run, None),
            reason=reason_for(declared, law, case),
            strict=(law, case) in declared or not case,
        )


def _parameters(plan: Iterator[Planned]) -> list[Any]:
    import pytest

    return [
        pytest.param(
            one.judge,
            id=one.label,
            marks=[pytest.mark.xfail(reason=one.reason, strict=one.strict)] if one.reason else [],
        )
        for one in plan
    ]
