"""example.bottleneck: a bottleneck after every block, and the schedule that prunes its hidden units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters import AdapterMethod, Delta, Insert, ParamStore, Schedule, Site
from peftx_example.config import BottleneckConfig
from peftx_kernels import bottleneck


class BottleneckInsert(Insert):
    """``h + U gelu(D h)`` with h (..., width of the model) the block's output, D (units, width), U (width, units).

    U starts at zero. A unit whose row of D and column of U are zero adds nothing and gets no gradient, so a pruned
    unit stays pruned, and its file needs no mask.

    Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, arXiv 1902.00751 (there after both
    halves of a block, with biases).
    """

    def __init__(self, site: Site, config: BottleneckConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        units, width = config.start_width, site.shape[0]
        dtype = self.parameter_dtype(site.dtype)
        self.down = nn.Parameter(torch.empty(units, width, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(width, units, dtype=dtype))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def insert(self, x: Tensor) -> Tensor:
        return bottleneck(x, self.down, self.up, activation="gelu")

    @staticmethod
    def param_count(site: Site, config: BottleneckConfig) -> int:
        return 2 * config.start_width * site.shape[0]


class Pruning(Schedule):
    """Leaves ``width + (start_width - width) (1 - t)^3`` units at every site, those of the largest ``|D_i| |U_i|``.

    t goes from 0 to 1 between `prune_from` and `prune_until`, shares of all steps.

    Zhu and Gupta, "To prune, or not to prune", 2017, arXiv 1710.01878 (equation 1).
    """

    def __init__(self, config: BottleneckConfig) -> None:
        self.config = config

    def start(self, deltas: Mapping[str, Delta], store: ParamStore, total_steps: int) -> None:
        super().start(deltas, store, total_steps)
        self.left = self.config.start_width
        self.inserts = [delta for delta in deltas.values() if isinstance(delta, BottleneckInsert)]

    def after_step(self, step: int) -> None:
        config = self.config
        t = (step / self.total_steps - config.prune_from) / (config.prune_until - config.prune_from)
        spare = (config.start_width - config.width) * (1 - min(max(t, 0.0), 1.0)) ** 3
        if config.width + round(spare) == self.left:
            return
        self.left = config.width + round(spare)
        for insert in self.inserts:
            importance = insert.down.norm(dim=1) * insert.up.norm(dim=0)
            keep = torch.zeros_like(importance, dtype=torch.bool)
            keep[importance.topk(self.left).indices] = True
            self.store.mask(insert.down, keep[:, None])
            self.store.mask(insert.up, keep)

    @property
    def settled(self) -> bool:
        return self.left == self.config.width

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.left = state["left"]


class Bottleneck(AdapterMethod):
    """`example.bottleneck`."""

    Config = BottleneckConfig
    Delta = BottleneckInsert
    kinds = ("activation",)

    def schedule(self, config: BottleneckConfig) -> Schedule:
        return Pruning(config)

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "2 start_width width a site"
