"""`RowSubject` and `RowTrial`: a method of kind *model* under test, on the tasks of its domain that it can be built on.

Data are the default data of each task, offline, whole: a fit on a few samples is not the fit of a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftx.config.run import RunConfig, TrainConfig
from peftx.data.contract import DataContext, Dataset, Split
from peftx.errors import DataError, ModelError, NetworkError
from peftx.runs.matching import why_not
from peftx.runs.planning import Plan, Row, preflight
from peftx.runs.provenance import data_card
from peftx.runs.record import clean
from peftx.runs.reload import without_data
from peftx.runs.session import load_data, make_task
from peftx.runs.subject import Subject, base_of, fitted, make
from peftx.tasks.contract import Batch, Batches, Meter, ModelSource, Task
from peftx.tasks.models import ModelMethod
from peftx.testing.lawbook import LawError, NotApplicable
from peftx.testing.subjects import configured, offline_context

if TYPE_CHECKING:
    from peftx.plugins.registry import Entry, Registry

__all__ = ["Elsewhere", "RowSubject", "RowTrial", "elsewhere", "on_every_task", "state_of"]

SEED = 5
CPU = torch.device("cpu")


class RowSubject:
    """A method of kind *model* under test."""

    def __init__(
        self, name: str, registry: Registry, options: Mapping[str, Any] | None = None, context: Any = None
    ) -> None:
        self.entry, self.registry = registry.methods[name], registry
        self.name, self.options = name, dict(options or {})
        self.context = offline_context(context)

    @property
    def spec(self) -> Any:
        """The descriptor."""
        return self.entry.spec

    @cached_property
    def config(self) -> Any:
        """The validated configuration."""
        return configured(self.entry, self.options, "method")

    @cached_property
    def method(self) -> ModelMethod:
        """The method."""
        found: ModelMethod = self.entry.load()()
        return found

    @cached_property
    def candidates(self) -> list[RowTrial]:
        """It on every task that its descriptor fits, whether or not it can be built there."""
        _ = self.config
        return [
            RowTrial(self, task)
            for task in self.registry.tasks.values()
            if why_not(self.spec, task.spec) is None
        ]

    @property
    def trials(self) -> list[RowTrial]:
        """It on every task that it can be built on and whose data are here.

        Raises:
            NotApplicable: there is none.
        """
        found = [one for one in self.candidates if not one.missing and one.refusal is None]
        if not found:
            missing = next((one.missing for one in self.candidates if one.missing), "")
            raise NotApplicable(missing or "no task takes it, which the law `fits` says")
        return found


class RowTrial:
    """A row on a task. Models are made anew for every law, from the same seed, by what makes those of a run."""

    def __init__(self, subject: RowSubject, task: Entry[Any]) -> None:
        self.subject, self.task_entry = subject, task

    def __repr__(self) -> str:
        return f"{self.subject.name} on {self.task_entry.name}"

    @cached_property
    def plan(self) -> Plan:
        """A run of the row on the task with everything else at its default."""
        config = RunConfig.model_validate(
            {
                "task": {"name": self.task_entry.name},
                "method": {"name": self.subject.name, **self.subject.options},
                "baselines": [],
                "offline": True,
            }
        )
        return replace(preflight(config, self.subject.registry), ctx=self.subject.context)

    @cached_property
    def missing(self) -> str:
        """Why nothing can be judged on this task, whatever the row; empty when something can."""
        for what in ("data", "model"):
            if not getattr(self.task_entry.spec, f"default_{what}"):
                return f"{self.task_entry.name} names no default {what}"
        try:
            _ = self.task
        except (DataError, ModelError, NetworkError) as error:
            return f"the data or the model of {self.task_entry.name} are not here: {error}"
        except Exception as error:
            return f"{self.task_entry.name} cannot be made, which its own laws say: {error}"
        return ""

    @cached_property
    def data(self) -> Dataset:
        """The task's default data."""
        return load_data(self.plan)

    @cached_property
    def task(self) -> Task:
        """The task over its data."""
        task = make_task(self.plan, self.data)
        task.prepare(task.splits())
        return task

    def tasks_otherwise_held_out(self) -> Iterator[tuple[str, Task]]:
        """The task with the same training split alone and other held-out splits, and what these hold; a task that
        cannot be made on such data is left out."""
        train = self.data.splits["train"].alone()
        others = [name for name in self.data.splits if name != "train"]
        for what, split in (("other samples", train), ("no sample", _Empty())):
            splits = {"train": train, **dict.fromkeys(others, split)}
            try:
                task = make_task(self.plan, replace(self.data, splits=splits))
                task.prepare(["train"])
            except Exception:
                continue
            yield f"{' and '.join(others)} hold {what}", task

    def task_without_data(self) -> Task:
        """The task as it is when a run predicts: what the record says of the data, and no sample.

        Raises:
            NotApplicable: the task cannot be made so, which keeps every method from predicting there.
        """
        record = {"data": data_card(self.data, self.plan.data_name)}
        stored = json.loads(json.dumps(clean(record), default=str))
        try:
            return make_task(self.plan, without_data(stored))
        except Exception as error:
            raise NotApplicable(
                f"{self.task_entry.name} cannot be made without data: {type(error).__name__}: {error}"
            ) from None

    @cached_property
    def refusal(self) -> Exception | None:
        """What building it on this task raised."""
        try:
            self.build()
        except Exception as error:
            return error
        return None

    def build(self, task: Task | None = None) -> nn.Module:
        """A new model, as a run begins with it."""
        return base_of(self.subject.entry, self.subject.config, self.task if task is None else task, SEED)

    @property
    def row(self) -> Row:
        """The row as a run plans it, with the task's recipe."""
        recipe = {"lr": 1e-3, **self.task.recipe(self.subject.name)}
        return Row(self.subject.entry, self.subject.config, TrainConfig(**recipe))

    def make(self, task: Task | None = None) -> Subject:
        """A new model and what is to be trained of it."""
        return make(self.row, self.task if task is None else task, SEED)

    @cached_property
    def scored(self) -> nn.Module:
        """A model ready to be scored, the same for all laws that only look at what it gives."""
        return self.ready().model

    def ready(self) -> Subject:
        """A new model ready to be scored; one that gradient steps train is as it starts."""
        made = self.make()
        if not self.trained:
            fitted(self.row, self.task, made, CPU)
        made.model.eval()
        return made

    @property
    def trained(self) -> bool:
        """Whether its descriptor says that gradient steps train it."""
        return bool(self.subject.spec.trained)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of a new model, by name."""
        return dict(self.build().named_parameters())

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """What `fit` returns for a new model, from the seed of a run."""
        return self.fit()

    def fit(self, task: Task | None = None) -> dict[str, Tensor]:
        """What `fit` returns when it is called anew, on another task as well."""
        task = self.task if task is None else task
        made = make(self.row, task, SEED)
        return dict(self.subject.method.fit(made.model, task, self.subject.config))

    def batch(self, split: str, size: int) -> Batch:
        """The first samples of a split, in stored order."""
        return next(iter(self.task.batches(split, size)))


def on_every_task(judge: Callable[[RowTrial], None]) -> Callable[[RowSubject], None]:
    """Judge a row on every task that takes it; the task is named in what was seen."""

    @wraps(judge)
    def on_all(subject: RowSubject) -> None:
        trials = subject.trials
        skipped: list[NotApplicable] = []
        for trial in trials:
            try:
                judge(trial)
            except NotApplicable as reason:
                skipped.append(reason)
            except LawError as error:
                raise LawError(f"on {trial.task_entry.name}, {error}") from error
        if len(skipped) == len(trials):
            raise skipped[0]

    return on_all


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of everything a state dict holds."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


class _Empty(Split[Any]):
    """A split of no samples."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError(index)


class Elsewhere(Task):
    """A task of nobody's, with nothing of what a row may ask for."""

    primary = "score"

    def build_model(self) -> nn.Module:
        raise NotImplementedError

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> Batches:
        raise NotImplementedError

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        raise NotImplementedError

    def meter(self) -> Meter:
        raise NotImplementedError


def elsewhere() -> Task:
    """A task that no row is written for."""
    data = Dataset("nothing", {"train": _Empty(), "val": _Empty()}, (), "0" * 64)
    return Elsewhere(None, data, ModelSource("nothing"), DataContext.create(offline=True))
