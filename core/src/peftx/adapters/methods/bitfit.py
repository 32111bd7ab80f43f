"""BitFit: the biases alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from peftx.adapters.method import AdapterMethod, is_chosen
from peftx.adapters.select import select_parameters
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import parameter_sites
from peftx.config.methods import BitFitConfig
from peftx.errors import SelectionError

__all__ = ["BitFit"]

#: parameters that are biases by another name: the query and value biases of BEiT-like attention, packed attention's
_BIASES = frozenset({"bias", "in_proj_bias", "q_bias", "v_bias"})


class BitFit(AdapterMethod):
    """`core.bitfit`: ``y = W x + b'`` with b' trained; linear, convolution and normalisation layers, and the head.

    Biases are told by the parameter's name, exactly ``bias`` (or one of the packed forms), never by a part of a
    name: relative-position tables are not biases of a layer. Of a fused projection ``attention.q`` is the bias of its
    queries, the first third of one vector; the other rows are no part of the adapter.

    Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
    ACL 2022, arXiv 2106.10199.
    """

    Config = BitFitConfig

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        """Nothing besides the biases owned."""
        return SitePlan()

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        sites = parameter_sites(model, bias_slices=True)
        heads = super().owned(model, config)
        taken = {(site.module, site.weight) for site in heads}
        biases = [
            site
            for site in select_parameters(
                sites, config.targets, config.exclude, strict=is_chosen(config, "targets")
            )
            if site.weight in _BIASES
            and (site.module, site.weight) not in taken
            and (config.norms or site.role != "norm")
        ]
        if not biases:
            raise SelectionError(
                "no layer that is targeted has a bias, so there is nothing for BitFit to train; choose another method"
            )
        return SitePlan(tuple(biases)) + heads

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "one value an output of every layer with a bias"
