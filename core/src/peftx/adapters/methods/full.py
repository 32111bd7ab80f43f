"""Full fine-tuning, as an adapter: a copy of every parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from peftx.adapters.method import AdapterMethod
from peftx.adapters.select import select_parameters
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import parameter_sites
from peftx.config.methods import FullConfig

__all__ = ["Full"]


class Full(AdapterMethod):
    """`core.full`: every targeted parameter is owned and trained, the base stays as it was.

    The upper reference row. Because the base is kept for an exact detach, memory holds the weights twice.
    """

    Config = FullConfig

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        """Nothing besides what is owned."""
        return SitePlan()

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        sites = parameter_sites(model)
        patterns = [*config.targets, *config.also_train]
        return SitePlan(tuple(select_parameters(sites, patterns, config.exclude, strict=True)))

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "every value of the parameters owned"
