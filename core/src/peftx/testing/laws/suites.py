"""The law of suites: read without torch, and every name and option in them sound."""

from __future__ import annotations

import math
from collections.abc import Mapping

from peftx.bench.grid import build_grid
from peftx.bench.request import Request
from peftx.bench.suites import load_suite
from peftx.config.suite import ALL, Suite, label
from peftx.errors import PeftxError
from peftx.plugins.descriptors import SuiteSpec
from peftx.plugins.registry import Entry
from peftx.testing.fresh import imports_torch
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.subjects import PluginSubject

__all__ = ["suites"]


@law("plugin", needs=["loads"])
def suites(subject: PluginSubject) -> None:
    """Its suites need no torch, name what there is, have valid options, and averages that are figures."""
    declared = [spec for _, spec in subject.declared if isinstance(spec, SuiteSpec)]
    if not declared:
        raise NotApplicable("it declares no suite")
    for spec in declared:
        for field in ("target", "averages"):
            module = getattr(spec, field).partition(":")[0]
            demand(
                not module or not imports_torch(module),
                f"the {field} of {spec.name} is in {module}, which imports torch",
            )
        try:
            _judge(Entry(spec, subject.info), subject)
        except PeftxError as error:
            raise LawError(f"{spec.name}: {error}") from error


def _judge(entry: Entry[SuiteSpec], subject: PluginSubject) -> None:
    """Raise LawError or PeftxError unless a grid can be made of the suite, data or no data."""
    suite, registry = load_suite(entry), subject.registry
    grid = build_grid(entry.name, suite, Request(suite=entry.name), registry, locate=False)
    named = [
        ("task", suite.task, grid.task),
        *(("data set", one.name, registry.resolve_dataset(one.name).name) for one in suite.data),
        *(
            ("method", one.name, registry.resolve_method(one.name).name)
            for one in suite.methods
            if one.name != ALL
        ),
    ]
    for what, name, full in named:
        bare = name.partition(":")[0]
        demand(bare == full, f"{entry.name} names the {what} {bare}, whose full name is {full}")
    if entry.spec.averages:
        _judge_averages(entry, suite)
    else:
        demand(not suite.published_averages, f"{entry.name} has published averages and makes none of its own")


def _judge_averages(entry: Entry[SuiteSpec], suite: Suite) -> None:
    """Raise LawError unless the averages of equal scores are figures, and those that were printed have their names."""
    made = entry.load("averages")({label(one): 50.0 for one in suite.data})
    sound = (
        isinstance(made, Mapping)
        and bool(made)
        and all(isinstance(value, int | float) and math.isfinite(value) for value in made.values())
    )
    demand(sound, f"the averages of {entry.name} are {made!r:.80}, expected finite numbers by name")
    for row in suite.published_averages:
        strange = next((name for name in row.values if name not in made), None)
        demand(
            strange is None,
            f"{entry.name} has a published average {strange!r} of {row.method}, and makes {', '.join(made)}",
        )
