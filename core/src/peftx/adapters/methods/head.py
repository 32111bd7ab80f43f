"""Linear probing: the head alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import SitePlan
from peftx.config.methods import HeadConfig
from peftx.errors import SelectionError

__all__ = ["Head"]


class Head(AdapterMethod):
    """`core.head`: ``logits = W f(x) + b`` with f frozen, in evaluation mode.

    The lower reference row: what a method must beat to be worth its parameters.
    """

    Config = HeadConfig

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        """No site besides the head."""
        return SitePlan()

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        owned = super().owned(model, config)
        if not len(owned):
            raise SelectionError(
                "this model has no part in the role of a head; name the module to train with also_train=['PATH']"
            )
        return owned
