"""From a configuration to a checked plan, before torch is imported.

Everything that can be wrong with a run and be known in a second is found here: names, options, a method that
does not fit the task, a model nobody knows, data that are not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from peftx.config.errors import as_config_error
from peftx.config.run import Choice, RunConfig, TrainConfig
from peftx.data.contract import DataContext
from peftx.errors import ConfigError, UnknownNameError
from peftx.plugins import get_registry
from peftx.plugins.descriptors import DatasetSpec, MethodSpec, ModelSpec, TaskSpec
from peftx.plugins.registry import Entry, Registry
from peftx.plugins.targets import load_target
from peftx.runs import tracking
from peftx.runs.matching import why_not

__all__ = ["Plan", "Row", "preflight", "settle"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A run whose names are resolved and whose options are validated.

    `model`: None when the model's name is free text for the task's pack; `model_config` then holds its
    options, validated when the pack names a schema for them. `baselines`: the rows besides the method,
    without it.
    """

    config: RunConfig
    registry: Registry
    task: Entry[TaskSpec]
    method: Entry[MethodSpec]
    data: Entry[DatasetSpec]
    model: Entry[ModelSpec] | None
    task_config: Any
    method_config: Any
    data_config: Any
    model_config: Any
    baselines: tuple[Entry[MethodSpec], ...]
    ctx: DataContext

    @property
    def data_name(self) -> str:
        """Full name of the data set, with the path after its colon made absolute."""
        if not self.data.argument:
            return self.data.name
        if not isinstance(getattr(self.data_config, "path", None), Path):
            # one of several by name, whatever folders there are here
            return f"{self.data.name}:{self.data.argument}"
        path = Path(self.data.argument).expanduser()
        # a path that does not exist from here stands below the data root, or is none at all
        return f"{self.data.name}:{path.absolute() if path.exists() else self.data.argument}"

    @property
    def model_name(self) -> str:
        """Full name of the model, or the free name."""
        return self.model.name if self.model else self.config.model.name or self.task.spec.default_model

    def resolved(self, train: TrainConfig) -> dict[str, Any]:
        """Return the run as nested plain values with every default filled in, for config.toml."""
        config = self.config
        return {
            "seed": config.seed,
            "device": config.device,
            "precision": config.precision,
            "offline": config.offline,
            "data_root": None if config.data_root is None else config.data_root.expanduser().absolute(),
            "baselines": [entry.name for entry in self.baselines],
            "test": config.test,
            "best_on_test": config.best_on_test,
            "efficiency": config.efficiency,
            "report": config.report,
            "track": list(config.track),
            "task": {"name": self.task.name, **_plain(self.task_config)},
            "method": {"name": self.method.name, **_plain(self.method_config)},
            "data": {"name": self.data_name, **_plain(self.data_config, skip=self._data_argument())},
            "model": {"name": self.model_name, **_plain(self.model_config)},
            "train": _plain(train),
        }

    def _data_argument(self) -> tuple[str, ...]:
        return ("path",) if self.data.argument else ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row to be trained: the method, its options, its settings."""

    method: Entry[MethodSpec]
    config: Any
    train: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """For the record's plan."""
        return {
            "method": self.method.name,
            "options": self.config.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
        }


def preflight(config: RunConfig, registry: Registry | None = None, *, locate: bool = True) -> Plan:
    """Resolve and check a run; with `locate`, also make sure that its data are there.

    Raises:
        UnknownNameError, PluginError: a name leads nowhere, or to a plugin or a package that is missing or broken.
        ConfigError: an option is wrong, or the method does not fit the task.
        ModelError: no pack knows the model.
        DataError, NetworkError: the data are not there and cannot be fetched.
    """
    registry = registry or get_registry()
    tracking.check(config.track)
    if not config.task.name:
        raise ConfigError(
            "no task was chosen: name a domain or a task, such as `vision`; `peftx list` shows them"
        )
    task = registry.resolve_task(config.task.name)
    domain = task.domain
    method = registry.resolve_method(config.method.name or task.spec.default_method or "core.lora", domain)
    reason = why_not(method.spec, task.spec)
    if reason:
        raise ConfigError(reason)
    data = registry.resolve_dataset(_chosen(config.data, task.spec.default_data, "data", task), domain)
    model, model_schema = _model(
        registry, task, _chosen(config.model, task.spec.default_model, "model", task)
    )
    data_options = config.data.options | ({"path": data.argument} if data.argument else {})
    ctx = DataContext.create(config.data_root, offline=config.offline, seed=config.seed)
    plan = Plan(
        config=config,
        registry=registry,
        task=task,
        method=method,
        data=data,
        model=model,
        task_config=validated(task.load("config"), config.task.options, "task"),
        method_config=validated(method.load("config"), config.method.options, "method"),
        data_config=validated(data.load("config") if data.spec.config else None, data_options, "data"),
        model_config=validated(model_schema, config.model.options, "model"),
        baselines=_baselines(registry, task, method, config.baselines, domain),
        ctx=ctx,
    )
    if locate and data.spec.locate:
        data.load("locate")(plan.data_config, ctx)
    return plan


def settle(train: TrainConfig, recipe: Mapping[str, Any], *, baseline: bool = False) -> TrainConfig:
    """Fill what the user left open from a task's recipe.

    A learning rate given for the method says nothing about the baselines beside it: those keep their own
    recipe's, and share everything else the user set.
    """
    given = {name: getattr(train, name) for name in train.model_fields_set}
    if baseline:
        given = {name: value for name, value in given.items() if name not in ("lr", "head_lr")}
    return TrainConfig(**(dict(recipe) | given))


def validated(schema: type[BaseModel] | None, options: Mapping[str, Any], section: str) -> Any:
    """Return `schema` filled with `options`; without a schema the options themselves must be none."""
    if schema is None:
        if options:
            raise ConfigError(f"--{section}.{next(iter(options))}: this {section} takes no options")
        return None
    try:
        return schema(**options)
    except ValidationError as error:
        raise as_config_error(error, prefix=section, known=list(schema.model_fields)) from error


def _chosen(choice: Choice, default: str, what: str, task: Entry[TaskSpec]) -> str:
    name = choice.name or default
    if not name:
        raise ConfigError(f"{task.name} has no default {what}: name one with --{what}")
    return name


def _model(
    registry: Registry, task: Entry[TaskSpec], name: str
) -> tuple[Entry[ModelSpec] | None, type[BaseModel] | None]:
    """Find the registered model, or ask the task's pack whether it understands the name.

    The pack's answer is true or false, or the ``"module:Class"`` of the options such models take.
    """
    try:
        entry = registry.resolve_model(name, task.domain)
    except UnknownNameError:
        answer = task.load("models")(name) if task.spec.models else False
        if not answer:
            raise
        return None, load_target(answer) if isinstance(answer, str) else None
    return entry, entry.load("config") if entry.spec.config else None


def _baselines(
    registry: Registry,
    task: Entry[TaskSpec],
    method: Entry[MethodSpec],
    names: Iterable[str] | None,
    domain: str,
) -> tuple[Entry[MethodSpec], ...]:
    asked = names is not None
    rows: dict[str, Entry[MethodSpec]] = {}
    for name in task.spec.baselines if names is None else names:
        entry = registry.resolve_method(name, domain)
        reason = why_not(entry.spec, task.spec)
        if reason and asked:
            raise ConfigError(f"baseline {name}: {reason}")
        if not reason and entry.name != method.name:
            rows[entry.name] = entry
    return tuple(rows.values())


def _plain(config: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fields of a validated config as plain values; paths are made absolute, so that a run can be repeated
    elsewhere."""
    if config is None:
        return {}
    values = config if isinstance(config, Mapping) else config.model_dump()
    return {
        key: value.expanduser().absolute() if isinstance(value, Path) else value
        for key, value in values.items()
        if key not in skip
    }
