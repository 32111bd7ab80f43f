"""What laws of data sets, tasks, models and plugins take as their argument: made from a name, loaded when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError, ModelError, NetworkError, UserError
from peftx.plugins.loader import PluginInfo
from peftx.testing.lawbook import NotApplicable

if TYPE_CHECKING:
    from peftx.plugins.registry import Entry, Registry
    from peftx.runs.planning import Plan
    from peftx.tasks.contract import Task

__all__ = ["DataSubject", "ModelSubject", "PluginSubject", "TaskSubject", "offline_context"]

#: samples of each split that a task is judged on
FEW = 23


def offline_context(context: Any = None) -> DataContext:
    """The context given, or this process's own; never the network unless it was given."""
    return context if context is not None else DataContext.create(offline=True)


def configured(entry: Entry[Any], options: Mapping[str, Any] | None, section: str) -> Any:
    """The validated configuration of a thing, None when it has none.

    Raises:
        ConfigError: an option is wrong.
        NotApplicable: it needs an argument that was not given.
    """
    from peftx.errors import ConfigError
    from peftx.runs.planning import validated

    schema = entry.load("config") if entry.spec.config else None
    given = dict(options or {})
    if entry.argument:
        given = {"path": entry.argument} | given
    if getattr(entry.spec, "parametric", False) and "path" not in given:
        raise NotApplicable(f"it needs a path: `peftx check {entry.name}:PATH`")
    try:
        return validated(schema, given, section)
    except ConfigError as error:
        required = (
            [name for name, field in schema.model_fields.items() if field.is_required()] if schema else []
        )
        if required and not options:
            raise NotApplicable(f"it needs the option {required[0]}") from error
        raise


class DataSubject:
    """A data set under test."""

    def __init__(
        self, name: str, registry: Registry, options: Mapping[str, Any] | None = None, context: Any = None
    ) -> None:
        bare = name.partition(":")[0]
        self.entry = registry.resolve_dataset(name) if ":" in name else registry.datasets[bare]
        self.name, self.options = name, dict(options or {})
        self.context = offline_context(context)

    @property
    def spec(self) -> Any:
        """The descriptor."""
        return self.entry.spec

    @property
    def config(self) -> Any:
        """The validated configuration."""
        return configured(self.entry, self.options, "data")

    def load(self, **options: Any) -> Dataset:
        """Load the data set anew.

        Raises:
            NotApplicable: its files are not here.
        """
        config = configured(self.entry, self.options | options, "data")
        try:
            self._locate(config)
            return self.entry.load()(config, self.context)
        except (DataError, NetworkError) as error:
            raise NotApplicable(f"its data are not here: {error}") from None

    def _locate(self, config: Any) -> None:
        if not self.spec.locate:
            return
        try:
            self.entry.load("locate")(config, self.context)
        except UserError:
            raise
        except Exception as error:
            raise NotApplicable(f"locate raised {type(error).__name__}, which another law says") from None

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, loaded once."""
        return self.load()


class ModelSubject:
    """A registered model under test."""

    def __init__(
        self, name: str, registry: Registry, options: Mapping[str, Any] | None = None, context: Any = None
    ) -> None:
        self.entry = registry.models[name]
        self.name, self.options = name, dict(options or {})

    @property
    def spec(self) -> Any:
        """The descriptor."""
        return self.entry.spec

    @property
    def config(self) -> Any:
        """The validated configuration."""
        return configured(self.entry, self.options, "model")

    def build(self, outputs: int | None, seed: int = 0) -> Any:
        """A new model with a head of that width; None leaves the model as it is.

        Raises:
            NotApplicable: its weights are not here.
        """
        import torch

        torch.manual_seed(seed)
        try:
            return self.entry.load()(self.config, outputs)
        except (ModelError, NetworkError) as error:
            raise NotApplicable(f"its weights are not here: {error}") from None


class TaskSubject:
    """A task under test, on a few samples of its default data and with its default model."""

    def __init__(
        self, name: str, registry: Registry, options: Mapping[str, Any] | None = None, context: Any = None
    ) -> None:
        self.entry, self.registry = registry.tasks[name], registry
        self.name, self.options = name, dict(options or {})
        self.context = offline_context(context)

    @property
    def spec(self) -> Any:
        """The descriptor."""
        return self.entry.spec

    @cached_property
    def plan(self) -> Plan:
        """A run of the task with everything at its default.

        Raises:
            NotApplicable: it has no default data or model, or they are not here.
        """
        from peftx.config.run import RunConfig
        from peftx.errors import ConfigError
        from peftx.runs.planning import preflight

        for what in ("data", "model"):
            if not getattr(self.spec, f"default_{what}"):
                raise NotApplicable(f"it names no default {what}")
        config = RunConfig.model_validate(
            {"task": {"name": self.name, **self.options}, "baselines": [], "offline": True}
        )
        try:
            return replace(preflight(config, self.registry), ctx=self.context)
        except (DataError, ModelError, NetworkError) as error:
            raise NotApplicable(f"its data or model are not here: {error}") from None
        except ConfigError as error:
            if "required" in str(error):
                raise NotApplicable(f"its defaults are not enough: {error}") from None
            raise

    @cached_property
    def _data(self) -> Dataset:
        from peftx.runs.session import load_data

        try:
            whole = load_data(self.plan)
        except (DataError, NetworkError) as error:
            raise NotApplicable(f"its data are not here: {error}") from None
        few = {name: split.select(_spread(len(split))) for name, split in whole.splits.items()}
        return replace(whole, splits=few)

    def make(self) -> Task:
        """The task, anew, on a few samples."""
        from peftx.runs.session import make_task

        task = make_task(self.plan, self._data)
        task.prepare(task.splits())
        return task

    def build(self, task: Task, seed: int = 0) -> Any:
        """The task's model, from a seed, in evaluation mode.

        Raises:
            NotApplicable: its weights are not here.
        """
        import torch

        torch.manual_seed(seed)
        try:
            return task.build_model().eval()
        except (ModelError, NetworkError) as error:
            raise NotApplicable(f"its model is not here: {error}") from None


def _spread(count: int) -> list[int]:
    """A few indices over the whole of a split, so that no class is left out where they are stored in order."""
    most = min(FEW, count)
    return [index * count // most for index in range(most)]


class PluginSubject:
    """An installed plugin under test, loaded or not."""

    def __init__(self, domain: str, registry: Registry) -> None:
        self.domain, self.registry = domain, registry

    @property
    def info(self) -> PluginInfo:
        """How it was found and what came of it."""
        return next(info for info in self.registry.plugins if info.domain == self.domain)

    @cached_property
    def module(self) -> ModuleType:
        """Its module.

        Raises:
            NotApplicable: it cannot be imported, which another law says.
        """
        import importlib

        try:
            return importlib.import_module(self.info.module.partition(":")[0])
        except BaseException as error:
            raise NotApplicable(f"its module cannot be imported ({type(error).__name__})") from None

    @cached_property
    def declared(self) -> list[tuple[str, Any]]:
        """(hook, descriptor) of all it declares, in its own order.

        Raises:
            NotApplicable: a hook of it fails.
        """
        from peftx.plugins.hookspecs import DECLARATIONS

        found: list[tuple[str, Any]] = []
        for hook in DECLARATIONS:
            function = getattr(self.module, hook, None)
            try:
                found += [(hook, spec) for spec in (function() or ())] if function is not None else []
            except Exception as error:
                raise NotApplicable(f"{hook} fails ({type(error).__name__})") from None
        return found
