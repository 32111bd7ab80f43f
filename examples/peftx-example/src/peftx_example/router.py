"""example.router: low-rank experts, mixed for every token by a gate that may be given a hint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters import AdapterMethod, Base, Delta, Site
from peftx_example.config import RouterConfig


class RouterDelta(Delta):
    """``y = W x + sum_e p_e B_e A_e x`` with ``p = softmax(G x + hint * onehot(expert))``, for every token x (in,).

    A (E R, in) and B (out, E R) hold the experts one below and beside the other; B and the gate G (E, in) start at
    zero. `expert`, int64 (B,), is the optional context: the expert each sample hints at, -1 for none. The gate keeps
    its say, so it is trained with a hint as well as without.

    Zadouri et al., "Pushing Mixture of Experts to the Limit", ICLR 2024, arXiv 2309.05444 (MoLoRA; no hint there).
    """

    routed = True

    def __init__(self, site: Site, config: RouterConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.experts, self.hint = config.experts, config.hint
        (out, width), total = site.shape, config.experts * config.rank
        dtype = self.parameter_dtype(site.dtype)
        self.gate = nn.Parameter(torch.zeros(config.experts, width, dtype=dtype))
        self.A = nn.Parameter(torch.empty(total, width, dtype=dtype))
        self.B = nn.Parameter(torch.zeros(out, total, dtype=dtype))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor, base: Base) -> Tensor:
        scores = F.linear(x, self.gate.to(x.dtype))  # (..., E)
        expert = self.context("expert", None)
        if expert is not None:
            hinted = expert[:, None] == torch.arange(self.experts, device=expert.device)  # (B, E)
            scores = scores + self.hint * self.per_sample(hinted, x).to(scores.dtype)
        low = F.linear(x, self.A.to(x.dtype)).unflatten(-1, (self.experts, -1))  # (..., E, R)
        mixed = (scores.softmax(-1)[..., None] * low).flatten(-2)
        y = base(x)
        return y + F.linear(mixed, self.B.to(x.dtype)).to(y.dtype)

    @staticmethod
    def param_count(site: Site, config: RouterConfig) -> int:
        out, width = site.shape
        return config.experts * (config.rank * (out + width) + width)


class Router(AdapterMethod):
    """`example.router`."""

    Config = RouterConfig
    Delta = RouterDelta
    kinds = ("linear", "linear_t")

    def context_example(self, config: RouterConfig, samples: int) -> dict[str, Tensor]:
        return {"expert": torch.arange(samples) % (config.experts + 1) - 1}

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "E (R (out + in) + in) a site"
