"""The best validation so far: what selection keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peftx.adapters import Adapted
from peftx.training.live import live

__all__ = ["Best"]


class Best:
    """Copy of what is trained, at the best validation so far; ties go to the lower loss, then to the earlier epoch."""

    def __init__(self, metric: str, *, higher_is_better: bool) -> None:
        self._sign = 1.0 if higher_is_better else -1.0
        self._metric = metric
        self._score: tuple[float, float] | None = None
        self._tensors: dict[str, Tensor] = {}
        self.epoch = 0

    def see(self, adapted: Adapted, epoch: int, scores: Mapping[str, float]) -> bool:
        """Keep what is trained if its scores are the best so far, and say whether they are."""
        score = (self._sign * scores[self._metric], -scores.get("loss", 0.0))
        if self._score is not None and score <= self._score:
            return False
        self._score, self.epoch = score, epoch
        now = {name: tensor.detach() for name, tensor in live(adapted).items()}
        if {n: t.shape for n, t in now.items()} != {n: t.shape for n, t in self._tensors.items()}:
            self._tensors = {name: tensor.clone() for name, tensor in now.items()}
        else:
            for name, tensor in now.items():
                self._tensors[name].copy_(tensor)
        return True

    def restore(self, adapted: Adapted) -> int:
        """Put the best values back and return their epoch, 0 when nothing was ever validated."""
        if self._tensors:
            with torch.no_grad():
                for name, tensor in live(adapted).items():
                    tensor.copy_(self._tensors[name])
        return self.epoch

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {"epoch": self.epoch, "score": self._score, "tensors": self._tensors}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a checkpoint."""
        self.epoch, self._score = state["epoch"], state["score"]
        self._tensors = {name: tensor.to(device) for name, tensor in state["tensors"].items()}
