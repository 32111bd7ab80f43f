"""From a checked plan to live objects: the data set and the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftx.data.contract import Dataset
from peftx.runs.planning import Plan
from peftx.tasks.contract import ModelSource, Task

__all__ = ["load_data", "make_task", "threads_of"]


def load_data(plan: Plan) -> Dataset:
    """Load the data set.

    Raises:
        DataError: it cannot be read.
    """
    return plan.data.load()(plan.data_config, plan.ctx)


def make_task(plan: Plan, data: Dataset) -> Task:
    """Build the task over `data`."""
    task = plan.task.load()(plan.task_config, data, model_source(plan), plan.ctx)
    task.workers = plan.config.train.workers
    return task


@contextmanager
def threads_of(record: Mapping[str, Any]) -> Iterator[None]:
    """Use as many threads as the run did: sums split among threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(record["environment"]["threads"]))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def model_source(plan: Plan) -> ModelSource:
    """What the task needs to build base models.

    A registered model's target is ``build(config, outputs) -> nn.Module``; `outputs` is the width of a fresh
    head, None to keep the model's own.
    """
    entry, config = plan.model, plan.model_config
    options = config.model_dump() if config is not None else {}
    if entry is None:
        return ModelSource(plan.model_name, options)

    def build(outputs: int | None) -> nn.Module:
        return entry.load()(config, outputs)

    return ModelSource(entry.name, options, build)
