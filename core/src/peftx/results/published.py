"""Rows that papers printed, beside ours: on the board of the same data set, marked, never ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftx.config.run import Choice
from peftx.config.suite import Suite, label
from peftx.errors import UserError
from peftx.report.board import Board, Standing
from peftx.results.facts import canonical
from peftx.results.grouping import Group, section
from peftx.results.labels import Defaults, flat

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

__all__ = ["with_published"]


def with_published(
    board: Board, group: Group, suites: Sequence[Suite], defaults: Defaults, registry: Registry | None = None
) -> Board:
    """The board with the published rows of those suites that have its task and its data set; each row once."""
    rows: dict[tuple[str, float, str], Standing] = {}
    for suite in suites:
        if suite.task != group.task:
            continue
        own = {
            label(one)
            for one in suite.data
            if _is_data(one, group, defaults, registry) and _is_asked(one.task, group)
        }
        for row in suite.published:
            if row.data in own:
                rows[row.method, row.value, row.source] = Standing(
                    method=row.method,
                    label=f"{row.method} ({row.model})" if row.model else row.method,
                    mean=row.value,
                    trainable=row.trainable,
                    published=row.source,
                )
    return replace(board, standings=(*board.standings, *rows.values())) if rows else board


def _is_asked(options: Mapping[str, Any], group: Group) -> bool:
    """Whether the task's options that belong to a suite's data set are the group's."""
    own = section(group, "task")
    return all(canonical(own.get(f"task.{key}")) == canonical(value) for key, value in options.items())


def _is_data(choice: Choice, group: Group, defaults: Defaults, registry: Registry | None) -> bool:
    """Whether a suite's data set is the group's: the same name, and the same options after defaults."""
    name = choice.name
    if registry is not None:
        try:
            entry = registry.resolve_dataset(name, group.task.partition(".")[0])
        except UserError:  # what is not installed has no runs here either
            return False
        name = f"{entry.name}:{entry.argument}" if entry.argument else entry.name
    if name != group.data:
        return False
    asked = flat({"data": defaults.filled("data", name, choice.options, group.task)})
    own = section(group, "data")
    keys = {*asked, *own} - {"data.fingerprint"}
    return all(canonical(asked.get(key)) == canonical(own.get(key)) for key in keys)
