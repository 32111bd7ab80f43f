"""From a suite and a request to rows: names resolved, options checked, data found. Torch-free."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from peftx.bench.cells import Point, Row, slug
from peftx.bench.request import Request
from peftx.config.errors import as_config_error
from peftx.config.run import Choice, RunConfig, TrainConfig
from peftx.config.suite import ALL, Suite, SuiteData, label
from peftx.errors import ConfigError, DataError, NetworkError, UserError
from peftx.plugins.descriptors import TaskSpec
from peftx.plugins.registry import Entry, Registry
from peftx.runs.matching import why_not
from peftx.runs.planning import Plan, preflight

__all__ = ["Grid", "build_grid", "protocol_of"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Every row of a bench, data set by data set, and the protocol they share."""

    suite: str
    about: str
    task: str
    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    protocol: dict[str, Any]


def build_grid(name: str, suite: Suite, request: Request, registry: Registry, *, locate: bool = True) -> Grid:
    """Make the rows of a suite, as far as they are asked for; with `locate`, make sure that its data are there.

    Raises:
        UnknownNameError, PluginError: a name leads nowhere.
        ConfigError: an option is wrong, a named method does not fit the task, a rate is set and searched, or a size
            is set and chosen by a budget.
        DataError, NetworkError: data are not there and cannot be fetched.
    """
    task = registry.resolve_task(suite.task)
    methods = _methods(suite.methods if request.methods is None else request.methods, task, registry)
    if request.budget is not None:
        _refuse_fixed_size(methods, registry)
    points = _points(suite, request)
    rows: list[Row] = []
    absent: dict[str, UserError] = {}
    for data in _data(suite, request, task, registry):
        train = {**suite.train, **data.train, **request.train}
        _refuse_fixed(train, request, points)
        search_config: Any = None
        for index, model in enumerate(
            request.models if request.models is not None else suite.models or ("",)
        ):
            for number, method in enumerate(methods):
                values = {
                    "task": {"name": task.name, **suite.task_options, **data.task},
                    "method": {"name": method.name, **method.options},
                    "data": {"name": data.name, **data.options},
                    "model": _values(Choice.model_validate(model)),
                    "train": train,
                    **_shared(request),
                }
                plan = planned(values, registry)
                if index == number == 0:
                    search_config = _searched(data, values, registry)
                    if locate and (error := _lacking(plan, search_config if points else None)):
                        absent[_label(data, plan)] = error
                row = _row(suite, request, plan, method, data, points, values)
                rows.append(dataclasses.replace(row, search=data.search, search_config=search_config))
    _distinct(rows)
    _refuse_absent(absent, list(dict.fromkeys(row.data for row in rows)))
    protocol = protocol_of(suite, request, points)
    return Grid(name, suite.about, task.name, tuple(rows), points, protocol)


def planned(values: dict[str, Any], registry: Registry) -> Plan:
    """Check the values of a run, whether its data are there or not.

    Raises: as `peftx.runs.preflight`; ConfigError where a value is wrong.
    """
    known = [*RunConfig.model_fields, *TrainConfig.model_fields]
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise as_config_error(error, known=known) from error
    return preflight(config, registry, locate=False)


def _searched(data: SuiteData, values: dict[str, Any], registry: Registry) -> Any:
    """The checked options of a data set for the runs of a search; None where they are its own."""
    if not data.search:
        return None
    return planned({**values, "data": {**values["data"], **data.search}}, registry).data_config


def _lacking(plan: Plan, search_config: Any) -> UserError | None:
    """What is missing of a row's data, of those of its search as well."""
    if not plan.data.spec.locate:
        return None
    locate = plan.data.load("locate")
    try:
        locate(plan.data_config, plan.ctx)
        if search_config is not None:
            locate(search_config, plan.ctx)
    except (DataError, NetworkError) as error:
        return error
    return None


def _refuse_absent(absent: Mapping[str, UserError], known: Sequence[str]) -> None:
    """Say of all data sets at once which are not there.

    Raises:
        DataError, NetworkError: some are not.
    """
    if not absent:
        return
    first = next(iter(absent.values()))
    if len(known) == 1:
        raise first
    there = [name for name in known if name not in absent]
    count = f"{len(absent)} of the {len(known)}" if there else f"none of the {len(known)}"
    others = f"; run the others with --data {shlex.quote(','.join(there))}" if there else ""
    raise type(first)(
        f"{count} data sets of this bench can{'not' if there else ''} be had: {', '.join(absent)} ({first}){others}"
    )


def _points(suite: Suite, request: Request) -> tuple[Point, ...]:
    """What a search tries: rates, each with every weight decay where those are searched as well."""
    rates = suite.rates if request.search == () else request.search or ()
    decays = suite.weight_decays if request.search_decay == () else request.search_decay or ()
    if decays and not rates:
        raise ConfigError(
            "--search weight_decay goes with --search lr: each of its values is tried at every rate"
        )
    return tuple(Point(rate, decay) for rate in rates for decay in decays or (None,))


def protocol_of(suite: Suite, request: Request, points: Sequence[Point]) -> dict[str, Any]:
    """What all cells of one bench have in common, whichever of them a call asks for."""
    search: Any = sorted({point.lr for point in points})
    decays = sorted({point.weight_decay for point in points if point.weight_decay is not None})
    if decays:
        search = {"lr": search, "weight_decay": decays}
    return {
        "task": {"name": suite.task, **suite.task_options},
        "train": {**suite.train, **request.train},
        "search": search,
        "budget": request.budget,
        "device": request.device,
        "precision": request.precision,
    }


def _shared(request: Request) -> dict[str, Any]:
    return {
        "device": request.device,
        "precision": request.precision,
        "offline": request.offline,
        "data_root": None if request.data_root is None else str(request.data_root),
        "efficiency": request.efficiency,
        "best_on_test": request.best_on_test,
        "baselines": [],
        "report": False,
    }


def _methods(asked: Iterable[Choice], task: Entry[TaskSpec], registry: Registry) -> list[Choice]:
    found: dict[str, Choice] = {}
    for choice in asked:
        if choice.name == ALL:
            if choice.options:
                raise ConfigError(f"all methods at once take no options (got {label(choice)}); name one")
            names = [
                entry.name for entry in registry.methods.values() if why_not(entry.spec, task.spec) is None
            ]
            more = [Choice(name=name) for name in names]
        else:
            entry = registry.resolve_method(choice.name, task.domain)
            reason = why_not(entry.spec, task.spec)
            if reason:
                raise ConfigError(reason)
            more = [_named(choice, entry.name)]
        found |= {label(one): one for one in more}
    if not found:
        raise ConfigError(f"no installed method fits {task.name}")
    return list(found.values())


def _data(suite: Suite, request: Request, task: Entry[TaskSpec], registry: Registry) -> list[SuiteData]:
    """The data sets asked for by their full names; one of the suite's own keeps the settings it has there, and with
    other options it is searched as the suite searches it."""

    def full(choice: Choice) -> SuiteData:
        entry = registry.resolve_dataset(choice.name, task.domain)
        name = f"{entry.name}:{entry.argument}" if entry.argument else entry.name
        return SuiteData.of(choice).model_copy(update={"name": name})

    own = {
        label(full(one)): full(one).model_copy(update={"train": one.train, "search": one.search})
        for one in suite.data
    }
    if request.data is None:
        return list(own.values())
    found = {}
    for choice in request.data:
        one = full(choice)
        alike = [other.search for other in own.values() if other.name == one.name]
        if alike and all(search == alike[0] for search in alike):
            one = one.model_copy(update={"search": alike[0]})
        found[label(one)] = own.get(label(one), one)
    return list(found.values())


def _refuse_fixed(train: dict[str, Any], request: Request, points: Sequence[Point]) -> None:
    if request.search_decay is not None and "weight_decay" in request.train:
        raise ConfigError(
            f"--search weight_decay and --train.weight-decay {request.train['weight_decay']:g}: give one of them"
        )
    fixed = [name for name in ("lr", "head_lr") if points and train.get(name) is not None]
    if fixed:
        flag = fixed[0].replace("_", "-")
        raise ConfigError(
            f"--search lr and --train.{flag} {train[fixed[0]]:g}: one searches the rate of everything that is trained, "
            "the other sets it; give one of them"
        )


def _refuse_fixed_size(methods: Iterable[Choice], registry: Registry) -> None:
    for choice in methods:
        size = registry.methods[choice.name].spec.size
        if size in choice.options:
            raise ConfigError(
                f"{label(choice)}: --budget chooses the {size}, and this sets it; leave one of them out"
            )


def _row(
    suite: Suite,
    request: Request,
    plan: Plan,
    method: Choice,
    data: SuiteData,
    points: Sequence[Point],
    values: dict[str, Any],
) -> Row:
    data_label = _label(data, plan)
    values = {**values, "data": {"name": plan.data_name, **data.options}}
    values["model"] = {**values["model"], "name": plan.model_name}
    model_label = label(Choice.model_validate(values["model"]))
    method_label = label(method)
    return Row(
        folder="/".join(map(slug, (data_label, model_label, method_label))),
        data=data_label,
        model=model_label,
        method=method.name,
        label=method_label,
        seeds=request.seeds or suite.seeds,
        points=tuple(points) if plan.method.spec.trained else (),
        values=values,
        plan=plan,
    )


def _label(data: SuiteData, plan: Plan) -> str:
    return label(data.model_copy(update={"name": plan.data_name}))


def _named(choice: Choice, name: str) -> Choice:
    return Choice.model_validate({"name": name, **choice.options})


def _values(choice: Choice) -> dict[str, Any]:
    return {"name": choice.name, **choice.options}


def _distinct(rows: Sequence[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        other = seen.setdefault(row.folder, row)
        if other is not row:
            raise ConfigError(f"{row.label} on {row.data} stands twice in the grid; name it once")
