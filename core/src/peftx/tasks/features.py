"""What a task adds to be trained on cached features: where nothing but the end of a model is trained, what comes before
gives the same for a sample in every epoch, and need be computed once.

`peftx.training.features` finds the end of the model and does the rest; a task that has the three members below takes
part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from peftx.tasks.contract import Batches

__all__ = ["FeatureCache", "FeatureTask"]


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """The wish for cached features. `mode`: auto (where the training is the same bit for bit), on (up to the last
    digits as well; a training that cannot have them is refused), off. `mib`: the most they may take."""

    mode: Literal["auto", "on", "off"] = "off"
    mib: int = 0


@runtime_checkable
class FeatureTask(Protocol):
    """A task whose model may be replaced by its last part.

    Its `forward` and `loss` must use the model only by calling it, with one tensor of a batch, and that is the tensor
    which `feature_batches` replaces.
    """

    @property
    def feature_cache(self) -> FeatureCache:
        """What the task's options say."""
        ...

    def feature_obstacle(self) -> str:
        """Why a training sample is not the same in every epoch, as a clause (images are flipped); empty when it is."""
        ...

    def feature_batches(
        self,
        split: str,
        batch_size: int,
        features: Tensor,
        *,
        train: bool = False,
        generator: torch.Generator | None = None,
    ) -> Batches:
        """Return what `batches` returns, the same samples in the same batches with the same draws from `generator`, but
        with row i of `features` (N, ...) in the place of what the model is fed of sample i of the split."""
        ...
