"""Rows and cells of a bench: what one run of the grid is called, where it stands, and how it is configured.

    OUT/<data>/<model>/<method>/seed<k>/           a run, scored on test
    OUT/<data>/<model>/<method>/search/lr=<x>/     a run of the search, scored on validation alone
                                      /lr=<x>,weight_decay=<y>/

Every cell is an ordinary run, so that everything that reads runs reads these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from peftx.config.run import RunConfig
from peftx.runs.planning import Plan

__all__ = ["Cell", "Point", "Row", "slug"]


class Point(NamedTuple):
    """What one run of a search tries: a learning rate, and a weight decay where that is searched, too."""

    lr: float
    weight_decay: float | None = None

    @property
    def name(self) -> str:
        """The name of its folder: exact."""
        return f"lr={self.lr}" + ("" if self.weight_decay is None else f",weight_decay={self.weight_decay}")

    def __str__(self) -> str:
        return f"lr={self.lr:g}" + (
            "" if self.weight_decay is None else f" weight_decay={self.weight_decay:g}"
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One run. `folder` is relative to the bench and names the cell; `point` is None where the recipe or the suite sets
    its rate. `config`: the values of a RunConfig, plain, without `out`."""

    folder: str
    data: str
    model: str
    method: str
    label: str
    seed: int
    point: Point | None
    search: bool
    config: Mapping[str, Any]

    @property
    def rate(self) -> float | None:
        """Its learning rate, where a search set it."""
        return None if self.point is None else self.point.lr

    @property
    def place(self) -> str:
        """How the cell is called in a line of its own."""
        what = f"search {self.point}" if self.search else f"seed {self.seed}"
        return f"{self.label} on {self.data}, {what}"


@dataclass(frozen=True, slots=True)
class Row:
    """One method with its options on one data set and model: its seeds, and the points it is searched over.

    `values`: what all its runs share, the values of a RunConfig; `plan`: those, checked. `search`: options of the data
    set over those for the runs of a search, and `search_config` all of them, checked; None where it has none. `off`:
    how far its trained parameters are from a budget, in words, empty where they are not; `trainable`: their number
    where it was counted.
    """

    folder: str
    data: str
    model: str
    method: str
    label: str
    seeds: int
    points: tuple[Point, ...]
    values: Mapping[str, Any]
    plan: Plan
    search: Mapping[str, Any] = field(default_factory=dict)
    search_config: Any = None
    trainable: int | None = None
    off: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells rows of one bench apart."""
        return self.data, self.model, self.label

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates it is searched over."""
        return tuple(dict.fromkeys(point.lr for point in self.points))

    def searches(self) -> list[Cell]:
        """The runs that choose the learning rate: the first seed, scored on validation alone."""
        return [self._cell(0, point, search=True) for point in self.points]

    def runs(self, point: Point | None = None) -> list[Cell]:
        """One run for each seed, at the point the search chose, or without one at that of the suite or recipe."""
        return [self._cell(seed, point, search=False) for seed in range(self.seeds)]

    def _cell(self, seed: int, point: Point | None, *, search: bool) -> Cell:
        train = dict(self.values["train"])
        if point is not None:
            # the head trains at the searched rate as well, whatever a recipe says: equal search is one rate a row
            train |= {"lr": point.lr, "head_lr": None}
            train |= {} if point.weight_decay is None else {"weight_decay": point.weight_decay}
        config = {**self.values, "train": train, "seed": seed}
        if search:
            config |= {"test": False, "best_on_test": False, "efficiency": False}
            config |= {"data": {**self.values["data"], **self.search}}
        name = f"search/{point.name}" if search and point is not None else f"seed{seed}"
        return Cell(
            f"{self.folder}/{name}",
            self.data,
            self.model,
            self.method,
            self.label,
            seed,
            point,
            search,
            config,
        )

    def plan_of(self, cell: Cell) -> Plan:
        """The checked run of one of this row's cells."""
        config = RunConfig.model_validate(dict(cell.config))
        if cell.search and self.search_config is not None:
            return replace(self.plan, config=config, data_config=self.search_config)
        return replace(self.plan, config=config)


def slug(text: str) -> str:
    """A label as one part of a path: readable, and no two labels alike."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.")
    if plain == text.replace(" ", "-") and len(plain) <= 80:
        return plain
    return f"{plain[:60].strip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
