"""Why a method does not fit a task: one sentence each, and None when nothing speaks against it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftx.plugins import MethodSpec, Needs, Offers, TaskSpec
from peftx.runs.matching import why_not


def method(needs: Needs = Needs(), kind: str = "adapter") -> MethodSpec:  # noqa: B008
    return MethodSpec("m.x", "", "a:b", "a:b", kind=kind, needs=needs)


def task(offers: Offers) -> TaskSpec:
    return TaskSpec("t.y", "", "a:b", "a:b", offers=offers)


@pytest.mark.parametrize(
    ("needs", "offers"),
    [
        (Needs(), Offers(sites=("linear",))),
        (Needs(sites=("linear", "conv2d")), Offers(sites=("conv2d", "norm"))),
        (Needs(sites=("linear",)), Offers()),
        (Needs(objective="supervised"), Offers()),
        (Needs(context=("camera",)), Offers(context=("camera", "user"))),
    ],
)
def test_what_fits(needs: Needs, offers: Offers) -> None:
    assert why_not(method(needs), task(offers)) is None


@pytest.mark.parametrize(
    ("needs", "offers", "words"),
    [
        (
            Needs(sites=("conv1d", "conv2d")),
            Offers(sites=("linear", "norm")),
            "conv1d or conv2d.*linear and norm",
        ),
        (Needs(objective="ctc"), Offers(), "the objective ctc, and t.y offers supervised"),
        (
            Needs(context=("camera", "user")),
            Offers(context=("user",)),
            "needs camera with every sample.*give it",
        ),
        (Needs(context=("camera", "user")), Offers(), "needs camera and user.*give them"),
    ],
)
def test_what_does_not_fit(needs: Needs, offers: Offers, words: str) -> None:
    reason = why_not(method(needs), task(offers))
    assert reason and reason.startswith("m.x") and "\n" not in reason
    import re

    assert re.search(words, reason)


def test_a_model_is_compared_on_the_tasks_it_names() -> None:
    row = MethodSpec("t.row", "", "a:b", "a:b", kind="model")
    assert why_not(row, task(Offers())) is None
    assert why_not(replace(row, tasks=("t.x", "t.y")), task(Offers())) is None
    assert (
        why_not(replace(row, tasks=("t.x", "t.z")), task(Offers()))
        == "t.row is a model to compare with on t.x and t.z, and not on t.y"
    )


@pytest.mark.parametrize("kind", ["procedure", "codec", "model"])
def test_only_adapters_run(kind: str) -> None:
    reason = why_not(method(kind=kind), task(Offers()))
    assert reason and f"is a {kind}" in reason
