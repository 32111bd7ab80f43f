"""Boards of a bench: the runs that count, as `peftx.results` ranks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peftx.config.suite import Suite
from peftx.plugins.registry import Registry
from peftx.report.board import Board
from peftx.results import Index, boards

__all__ = ["boards_of"]


def boards_of(out: Path, bench: Mapping[str, Any], registry: Registry) -> list[Board]:
    """One board for each data set and model of a bench, in its order, from the runs of all calls but none of a search.

    `bench`: bench.json, whose suite brings published rows where they were asked for.
    """
    groups: dict[tuple[str, str], list[Path]] = {}
    for cell in bench["cells"]:
        if not cell.get("search") and (out / cell["folder"]).is_dir():
            groups.setdefault((cell["data"], cell["model"]), []).append(out / cell["folder"])
    if not groups:
        return []
    suites = _published(bench)
    with Index(out, memory=True) as index:
        return [
            board
            for folders in groups.values()
            for board in boards(index, suites=suites, registry=registry, folders=folders)
        ]


def _published(bench: Mapping[str, Any]) -> tuple[Suite, ...]:
    if not bench.get("published"):
        return ()
    try:
        return (Suite.model_validate(bench.get("definition")),)
    except ValidationError:  # a later peftx may know more of a suite; the runs are what counts
        return ()
