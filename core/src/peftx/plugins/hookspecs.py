"""The whole extension contract: eight hooks that yield descriptors and five events of a run.

A plugin is a light module named by an entry point of the group ``peftx.plugins``; the entry point's name is
the domain the plugin owns. It marks functions of these names with `hookimpl`, and a hook may name only the
arguments it needs.

    PEFTX_API = 1

    @hookimpl
    def peftx_methods():
        yield MethodSpec("mine.scale", "one scale per channel", "mine.scale:Scale", "mine.config:ScaleConfig")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from peftx.plugins.api import PROJECT
from peftx.plugins.descriptors import (
    CommandSpec,
    DatasetSpec,
    KernelSpec,
    MethodSpec,
    ModelSpec,
    PanelSpec,
    SuiteSpec,
    TaskSpec,
)

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Declaring hooks and the one descriptor type each may yield.
DECLARATIONS: dict[str, type] = {
    "peftx_methods": MethodSpec,
    "peftx_tasks": TaskSpec,
    "peftx_datasets": DatasetSpec,
    "peftx_models": ModelSpec,
    "peftx_suites": SuiteSpec,
    "peftx_kernels": KernelSpec,
    "peftx_commands": CommandSpec,
    "peftx_panels": PanelSpec,
}
EVENTS: tuple[str, ...] = (
    "peftx_run_started",
    "peftx_step",
    "peftx_evaluated",
    "peftx_run_finished",
    "peftx_run_stopped",
)


@hookspec
def peftx_methods() -> Iterable[MethodSpec]:  # type: ignore[empty-body]
    """Methods this plugin brings."""


@hookspec
def peftx_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Tasks of this domain; the first is the domain's default."""


@hookspec
def peftx_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Data sets of this domain."""


@hookspec
def peftx_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Base models of this domain."""


@hookspec
def peftx_suites() -> Iterable[SuiteSpec]:  # type: ignore[empty-body]
    """Benchmark suites of this domain."""


@hookspec
def peftx_kernels() -> Iterable[KernelSpec]:  # type: ignore[empty-body]
    """Other implementations of named kernel ops."""


@hookspec
def peftx_commands() -> Iterable[CommandSpec]:  # type: ignore[empty-body]
    """Command line commands, named ``domain.command``."""


@hookspec
def peftx_panels() -> Iterable[PanelSpec]:  # type: ignore[empty-body]
    """Panels for reports."""


@hookspec
def peftx_run_started(run: Any, resumed: bool) -> Iterable[object] | None:
    """A run is about to train, or goes on; `run` has at least `.config` and `.folder`.

    May yield listeners to this run alone: objects with methods named like the events below.
    """


@hookspec
def peftx_step(run: Any, row: str, step: int, metrics: Mapping[str, float]) -> None:
    """An optimizer step was logged; `row` is the method that is trained, this one's or a baseline.

    A run that goes on after it was killed tells again of the steps since its last checkpoint.
    """


@hookspec
def peftx_evaluated(run: Any, row: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
    """A split was scored after `step` optimizer steps: `val` now and then, every split at the end of a row."""


@hookspec
def peftx_run_finished(run: Any, record: Mapping[str, Any]) -> None:
    """A run has written its record."""


@hookspec
def peftx_run_stopped(run: Any, error: BaseException) -> None:
    """A run ended before its end: interrupted, or failed."""
