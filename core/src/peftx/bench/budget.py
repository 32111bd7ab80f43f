"""Equal size: the size of each method at which it trains as many parameters as a budget allows. Imports torch.

A method names the option that scales it (`MethodSpec.size`, ``rank``). Its parameters are counted by closed formula on
the task's own model; nothing is attached or trained. One step of a size is often more than the budget's tolerance, so a
method whose configuration has `<size>_pattern` takes two neighbouring sizes, each at a part of its sites.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from torch import nn

import peftx
from peftx.bench.cells import Row
from peftx.bench.grid import planned
from peftx.data.contract import Dataset
from peftx.errors import AdapterError, ConfigError, UserError
from peftx.plugins.registry import Registry
from peftx.runs.planning import Plan
from peftx.runs.session import load_data, make_task
from peftx.runs.subject import counts_of
from peftx.tasks.contract import Task

__all__ = ["TOLERANCE", "fit_row", "fit_rows"]

#: A row this near to the budget meets it.
TOLERANCE = 0.02
#: No size beyond this is tried: more than any weight has rows or columns to use.
LARGEST = 2**17

Options = dict[str, Any]


def fit_rows(rows: Sequence[Row], budget: int, registry: Registry) -> Iterator[Row]:
    """Rows with the size at which each trains `budget` parameters, as near as can be; `off` says where it is not near.

    Raises:
        DataError, ModelError: the data or the model are not there to count on.
    """
    tasks: dict[tuple[str, str], Task] = {}
    models: dict[tuple[str, str], nn.Module] = {}
    data: dict[str, Dataset] = {}
    for row in rows:
        place = row.data, row.model
        if place not in tasks:
            plan = _without_weights(row.plan)
            if row.data not in data:
                data[row.data] = load_data(plan)
            tasks[place] = make_task(plan, data[row.data])
        if row.plan.method.spec.kind == "model":
            yield _own_model(row, tasks[place])
            continue
        if place not in models:
            models[place] = tasks[place].build_model()
        yield fit_row(row, models[place], budget, registry)


def _own_model(row: Row, task: Task) -> Row:
    """A row with a model of its own is as large as it is: it stands beside what a budget makes equal."""
    counts = counts_of(row.plan.method, row.plan.method_config, task, None)
    return dataclasses.replace(row, trainable=counts.trainable, off="a model of its own, as large as it is")


def fit_row(row: Row, model: nn.Module, budget: int, registry: Registry) -> Row:
    """The row at the size that trains `budget` parameters of `model`, as near as can be."""
    counter = _Counter(row, model)
    try:
        options = _fitted(counter, row, budget)
        trainable, head = counter(options), counter.head(options)
    except (
        UserError
    ) as error:  # it will not attach: its cells say so, and how many there are is another's affair
        return dataclasses.replace(row, off=f"not counted: {error}")
    values = {**row.values, "method": {**row.values["method"], **options}}
    return dataclasses.replace(
        row,
        values=values,
        plan=planned(values, registry),
        trainable=trainable,
        off=_off(row, trainable, head, budget),
    )


class _Counter:
    """Trained parameters of a row's method on a model, by the options added to its own."""

    def __init__(self, row: Row, model: nn.Module) -> None:
        self._method, self._config, self._model = row.method, row.plan.method_config, model
        self._known: dict[str, Any] = {}

    def explain(self, options: Options) -> Any:
        """The explanation with these options.

        Raises:
            ValidationError, ConfigError, AdapterError: the method has no such size.
        """
        key = repr(sorted(options.items()))
        if key not in self._known:
            given = self._config.model_dump(exclude_unset=True) | options
            self._known[key] = peftx.explain(self._model, self._method, config=type(self._config)(**given))
        return self._known[key]

    def __call__(self, options: Options) -> int:
        return int(self.explain(options).counts.trainable)

    def head(self, options: Options) -> int:
        """Of these, those of the head."""
        return int(self.explain(options).counts.head)

    def sites(self, options: Options) -> dict[str, int]:
        """Trained parameters of every adapted site by its key, in the order of the model."""
        return {
            row.key: row.trained for row in self.explain(options).rows if not row.owned and row.kind != "bank"
        }


def _fitted(counter: _Counter, row: Row, budget: int) -> Options:
    """Options that bring the row to the budget; none for a method without a size."""
    name = row.plan.method.spec.size
    if not name:
        return {}
    below, above = _neighbours(lambda size: counter({name: size}), budget)
    near: list[Options] = [{name: size} for size in (below, above) if size is not None]
    pattern = f"{name}_pattern"
    mixes = pattern in type(row.plan.method_config).model_fields and not row.values["method"].get(pattern)
    if mixes and below is not None and above is not None:
        expression = _mixed(
            counter.sites({name: below}), counter.sites({name: above}), budget - counter({name: below})
        )
        if expression:
            near.append({name: below, pattern: {expression: above}})
    return min(near, key=lambda options: abs(counter(options) - budget))


def _neighbours(count: Callable[[int], int], budget: int) -> tuple[int | None, int | None]:
    """The largest size that trains at most `budget` parameters and the next one, of those the method takes.

    The count grows with the size. Sizes a method does not take (an odd rank) are passed over.

    Raises:
        ConfigError: the method takes no size at all.
    """

    def valid(size: int, step: int) -> int | None:
        """The nearest size in one direction that the method takes."""
        for candidate in range(size, size + 8 * step, step):
            if candidate < 1:
                return None
            try:
                count(candidate)
            except (ValidationError, ConfigError, AdapterError):
                continue
            return candidate
        return None

    low = valid(1, 1)
    if low is None:
        raise ConfigError("no size from 1 to 8 is one that the method takes")
    if count(low) > budget:
        return None, low
    high: int | None = low
    while high is not None and count(high) <= budget:
        last, high = high, valid(2 * high, 1) if 2 * high <= LARGEST else None
        if high is not None and count(high) == count(last):
            return last, None  # it has all there is to train
        low = last
    if high is None:
        return low, None
    while (middle := valid((low + high) // 2, 1)) is not None and low < middle < high:
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    following = valid(low + 1, 1)
    return low, following if following is not None and following <= high else high


def _mixed(below: dict[str, int], above: dict[str, int], gap: int) -> str:
    """A regular expression for the sites that take the larger size, so that together they fill `gap`.

    They are spread over the depth of the model first; what then is missing is filled by the largest sites that fit, and
    the smallest one where that comes nearer.
    """
    steps = {key: above[key] - below[key] for key in below if key in above and above[key] > below[key]}
    total = sum(steps.values())
    chosen: set[str] = set()
    filled = passed = 0
    for key, step in steps.items():
        passed += step
        if filled + step <= gap * passed / total and filled + step <= gap:
            chosen.add(key)
            filled += step
    for key, step in sorted(steps.items(), key=lambda item: -item[1]):
        if key not in chosen and filled + step <= gap:
            chosen.add(key)
            filled += step
    rest = [key for key in steps if key not in chosen]
    smallest = min(rest, key=steps.__getitem__, default=None)
    if smallest is not None and abs(filled + steps[smallest] - gap) < gap - filled:
        chosen.add(smallest)
    # anchored: a pattern is compared with the end of a key, and one key may end with another
    return "|".join(f"^{re.escape(key)}" for key in steps if key in chosen)


def _off(row: Row, trainable: int, head: int, budget: int) -> str:
    """How far a row is from the budget, in words; empty where it is near."""
    share = trainable / budget - 1
    if abs(share) <= TOLERANCE:
        return ""
    if share >= 1:
        words = f"{share + 1:.1f} times the budget"
    else:
        words = f"{100 * abs(share):.{1 if abs(share) < 0.1 else 0}f} % {'above' if share > 0 else 'below'} the budget"
    if head > budget:
        return f"{words}; its head alone has {head:,} parameters"
    if not row.plan.method.spec.size:
        return f"{words}; it has no size to choose"
    return words


def _without_weights(plan: Plan) -> Plan:
    """The plan with a model that is not fetched: parameters are counted by their shapes."""
    fields = getattr(type(plan.model_config), "model_fields", {})
    if "pretrained" not in fields or "pretrained" in plan.model_config.model_fields_set:
        return plan
    return dataclasses.replace(plan, model_config=plan.model_config.model_copy(update={"pretrained": False}))
