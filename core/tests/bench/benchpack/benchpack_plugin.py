"""A pack of suites over the toy pack, with methods that end badly and a task that takes its time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import ConfigDict, Field
from toypack_plugin import TaskConfig as ToyTaskConfig

from peftx.config.suite import Published, PublishedAverage, Suite
from peftx.plugins import MethodSpec, Needs, Offers, SuiteSpec, TaskSpec, hookimpl

PEFTX_API = 1

POINTS = {"name": "toy.points", "spread": 2.0}


class TaskConfig(ToyTaskConfig):
    """Options of the task."""

    model_config = ConfigDict(extra="forbid")
    pause: float = Field(default=0.0, ge=0, description="seconds every training step takes at least")


SMALL = Suite(
    task="grid.sorting",
    about="Points, twice.",
    data=(POINTS, {**POINTS, "classes": 4, "train": {"epochs": 2}}),
    methods=("core.head", "core.lora"),
    seeds=2,
    train={"epochs": 3, "batch_size": 16},
    rates=(1e-2, 1e-1),
    published=(Published(method="Sorter", data="toy.points spread=2.0", value=99.0, source="a book"),),
)
AVERAGED = Suite(
    task="grid.sorting",
    about="Points of two kinds, and their averages.",
    data=(POINTS, {**POINTS, "classes": 4}),
    methods=("core.head",),
    seeds=2,
    train={"epochs": 1, "batch_size": 16},
    published_averages=(
        PublishedAverage(method="Sorter", values={"mean": 99.0}, source="a book", model="Abacus"),
    ),
)
PARTED = Suite(
    task="grid.sorting",
    about="Points, searched on some and trained on others.",
    data=({**POINTS, "search": {"spread": 1.5}},),
    methods=("core.head",),
    seeds=2,
    train={"epochs": 2, "batch_size": 16},
    rates=(1e-2, 1e-1),
)
SLOW = Suite(
    task="grid.sorting",
    about="Points, slowly.",
    data=(POINTS,),
    methods=("core.head", "core.lora"),
    seeds=1,
    task_options={"pause": 0.1},
    train={"epochs": 5, "batch_size": 16, "checkpoint": 0.0},
)


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean and the worst of the two."""
    assert set(scores) == {"toy.points spread=2", "toy.points classes=4 spread=2"}
    return {"mean": sum(scores.values()) / 2, "worst": min(scores.values())}


@hookimpl
def peftx_suites() -> Iterator[SuiteSpec]:
    """Suites, and one that is none."""
    yield SuiteSpec("grid.small", "points, twice", "benchpack_plugin:SMALL")
    yield SuiteSpec(
        "grid.averaged", "points, averaged", "benchpack_plugin:AVERAGED", averages="benchpack_plugin:averages"
    )
    yield SuiteSpec("grid.parted", "points, searched apart", "benchpack_plugin:PARTED")
    yield SuiteSpec("grid.slow", "points, slowly", "benchpack_plugin:SLOW")
    yield SuiteSpec("grid.none", "no suite at all", "benchpack_plugin:POINTS")


@hookimpl
def peftx_tasks() -> Iterator[TaskSpec]:
    """The toy task, which may take its time."""
    yield TaskSpec(
        name="grid.sorting",
        summary="which centre is a point nearest to",
        target="benchpack_task:Sorting",
        config="benchpack_plugin:TaskConfig",
        offers=Offers(sites=("linear",)),
        default_data="toy.points",
        default_model="toy.net",
        default_method="core.lora",
    )


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Methods that end badly, each in its own way."""
    config, needs = "peftx.config.methods:LoRAConfig", Needs(sites=("linear",))
    yield MethodSpec("grid.deadly", "kills its process", "benchpack_task:Deadly", config, needs=needs)
    yield MethodSpec("grid.raising", "raises", "benchpack_task:Raising", config, needs=needs)
