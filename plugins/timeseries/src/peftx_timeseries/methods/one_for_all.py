"""One-for-All: rank-stabilised low-rank updates at both ends of a frozen language model."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from peftx.adapters.methods.rslora import RsLoRA
from peftx.adapters.select import select_parameters
from peftx.adapters.site import SitePlan
from peftx.adapters.survey import parameter_sites
from peftx_timeseries.config.methods import OneForAllConfig

__all__ = ["OneForAll"]

_OWNED = {"frozen": (), "in": ("in_layer",), "both": ("in_layer", "out_layer")}
#: Parts of a forecaster that hold nothing until they are trained or fitted.
_BELOW = ("residual", "covariate_in", "covariate_out")


class OneForAll(RsLoRA):
    r"""`timeseries.one_for_all`: everything is frozen but ``W + (alpha / sqrt(R)) B A`` at two places.

    The positional embedding (rows of the table that no token reaches get no gradient) and the output projection. As in
    the official code both projections are random and frozen; they follow from a seed of the model's, and an adapter is
    refused on a model that has others. With a `residual` the linear forecast belongs to the adapter, and so do the maps
    of covariates, where there are some: they start at zero, and frozen they would do nothing.

    One-for-All, 2026, arXiv:2603.29756; PEFT's `gaussian` start is kept as the default and is not rank-stable.
    """

    Config = OneForAllConfig
    # dropout acts on a layer's input, and that of a packed attention is never seen
    kinds: ClassVar[tuple[str, ...]] = ("linear", "linear_t", "conv1d", "conv2d", "embedding")

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        """What `io` and `also_train` say, and the linear forecast below the trunk's and the maps of covariates, where
        there are some."""
        sites = parameter_sites(model)
        patterns = [*config.also_train, *_OWNED[config.io]]
        modules = {part for site in sites for part in site.module.split(".")}
        patterns += [name for name in _BELOW if name in modules]
        return SitePlan(tuple(select_parameters(sites, patterns, config.exclude, strict=bool(patterns))))
