"""AdapterTune: a bottleneck behind every block, whose second map starts at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftx.adapters.activations import activation_sites
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import in_model_order
from peftx.errors import SelectionError
from peftx_kernels import bottleneck
from peftx_vision.config.adaptertune import AdapterTuneConfig
from peftx_vision.methods.bottleneck_insert import BottleneckInsert

__all__ = ["AdapterTune", "AdapterTuneInsert"]

_STD = 1e-4


class AdapterTuneInsert(BottleneckInsert):
    r"""``out = y + alpha (U gelu(D y + b_D) + b_U)`` with y (..., d) the block's output, as it is: no norm before it.

    D (r, d) is Glorot uniform, U (d, r) and the biases are zero (`init` small: U and b_U from N(0, 1e-4^2)). Every
    token goes through it, the class token as well. Parameters are at least float32; the products run in the type of y.

    "AdapterTune: Zero-Initialized Low-Rank Adapters for Frozen Vision Transformers", 2026, arXiv 2603.14706.
    """

    def __init__(self, site: Site, config: AdapterTuneConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        rank, width, dtype = config.rank, site.shape[0], self.parameter_dtype(site.dtype)
        self.alpha = config.alpha
        self.down = nn.Parameter(torch.empty(rank, width, dtype=dtype))
        self.down_bias = nn.Parameter(torch.zeros(rank, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(width, rank, dtype=dtype))
        self.up_bias = nn.Parameter(torch.zeros(width, dtype=dtype))
        nn.init.xavier_uniform_(self.down)
        if config.init == "small":
            nn.init.normal_(self.up, std=_STD)
            nn.init.normal_(self.up_bias, std=_STD)

    @classmethod
    def param_count(cls, site: Site, config: AdapterTuneConfig) -> int:
        """2 r d + r + d."""
        width = site.shape[0]
        return 2 * config.rank * width + config.rank + width

    def run(self, x: Tensor, residual: Tensor | None) -> Tensor:
        return bottleneck(
            x,
            self.down,
            self.up,
            down_bias=self.down_bias,
            up_bias=self.up_bias,
            residual=residual,
            scale=self.alpha,
            activation="gelu",
        )


class AdapterTune(AdapterMethod):
    """`vision.adaptertune`."""

    Config: ClassVar[type[AdapterTuneConfig]] = AdapterTuneConfig
    Delta: ClassVar[type[AdapterTuneInsert]] = AdapterTuneInsert
    kinds = ("activation",)
    fallbacks = ()

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        found = super().plan(model, config)
        if config.every == 1:
            return found
        # places are counted in the model's own order, those that are left out as well
        places: dict[str, list[str]] = {}
        for site in in_model_order(model, activation_sites(model)):
            places.setdefault(site.role, []).append(site.key)
        kept = [site for site in found if places[site.role].index(site.key) % config.every == 0]
        if len(found) and not kept:
            raise SelectionError(
                f"every {config.every} leaves none of the places that are targeted ({found.keys[0]}, for one): a place "
                "is kept when its number in the model, from 0, divides by it; give a smaller one or other targets"
            )
        return SitePlan(tuple(kept))

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "2 r d + r + d a place"
