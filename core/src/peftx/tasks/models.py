"""`ModelMethod`: a method of kind *model*, a row to compare with that brings a model of its own.

A naive forecast, a closed form, a small network: what a frozen trunk with an adapter has to beat. Such a row takes part
in runs, benches, records and reports like any other; it is trained by the same loop and scored by the same task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel
from torch import Tensor, nn

if TYPE_CHECKING:
    from peftx.tasks.contract import Task

__all__ = ["ModelMethod"]


class ModelMethod(ABC):
    """Base of every method of kind *model*.

    A subclass sets `Config` and writes `build`. Where ``MethodSpec.trained`` says that no gradient step is made, `fit`
    gives the parameters their values, and a model without parameters needs neither.
    """

    Config: ClassVar[type[BaseModel]]
    #: laws of the conformance kit known to fail, law -> why
    known_failures: ClassVar[Mapping[Any, str]] = {}

    @abstractmethod
    def build(self, task: Task, config: Any) -> nn.Module:
        """Return a new model that `task.forward` can call, the same bits for the same state of torch's generator.

        It depends on the shapes of the task and not on its samples: a run is scored again later without training.

        Raises:
            ConfigError: the task is none that this model can be used on.
        """

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        """Return the values of all parameters, by their names, from the training split alone.

        Raises:
            DataError: the training split is too small.
        """
        return {}
