"""Hydra: a low-rank branch beside a frozen layer, and one behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta
from peftx.adapters.method import AdapterMethod, refuse_dropout
from peftx.adapters.site import Site, SitePlan
from peftx_vision.config.hydra import HydraConfig

__all__ = ["Hydra", "HydraDelta"]

_STD = 0.02


class HydraDelta(Delta):
    r"""``y = f(x) + s [B_p drop(A_p x + a_p) + c_p] + s [B_s drop(A_s f(x) + a_s) + c_s]``, f(x) = W x + b.

    Shapes: A_p (k, in), A_s (k, out), B_p and B_s (out, k), a (k,), c (out,). Both branches are linear, so without
    dropout the layer with them is a layer again, with W_p = B_p A_p and W_s = B_s A_s:

        W' = (I + s W_s) W + s W_p
        b' = (I + s W_s) b + s (B_p a_p + c_p) + s (B_s a_s + c_s)

    The second branch reads f(x), not the sum. B and all biases start at zero, so training starts at the base model.
    Parameters are at least float32; the branches run in the input's dtype. A layer without a bias has no place for a
    and c, and its branches have none.

    Kim et al., "Hydra: Multi-head Low-rank Adaptation for Parameter Efficient Fine-tuning", 2023, arXiv 2309.06922.
    """

    changes_bias = True

    def __init__(self, site: Site, config: HydraConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        out, width = site.matrix
        self.scale, self.dropout = config.scale, config.dropout
        rank, dtype = config.rank, self.parameter_dtype(site.dtype)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, dtype=dtype))

        self.A_p, self.B_p = zeros(rank, width), zeros(out, rank)
        self.A_s, self.B_s = zeros(rank, out), zeros(out, rank)
        self.a_p = None if bias is None else zeros(rank)
        self.a_s = None if bias is None else zeros(rank)
        self.c_p = None if bias is None else zeros(out)
        self.c_s = None if bias is None else zeros(out)
        for first in (self.A_p, self.A_s):
            if config.init == "xavier":
                nn.init.xavier_uniform_(first)
            else:
                nn.init.normal_(first, std=_STD)

    @classmethod
    def param_count(cls, site: Site, config: HydraConfig) -> int:
        """k (in + out) + 2 k out, and 2 (k + out) with biases."""
        out, width = site.matrix
        biases = 0 if site.bias is None else 2 * (config.rank + out)
        return config.rank * (width + 3 * out) + biases

    @staticmethod
    def rank_of(site: Site, config: HydraConfig) -> int:
        """k: more of it than min(out, in) adds nothing to either branch."""
        return config.rank

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        wide = weight.to(self.A_p.dtype)
        wide = wide + self.scale * (self.B_s @ (self.A_s @ wide) + self.B_p @ self.A_p)
        if bias is None or self.a_p is None or self.a_s is None:
            return wide.to(weight.dtype), bias
        own = bias.to(self.A_p.dtype)
        added = self.B_p @ self.a_p + self.B_s @ (self.A_s @ own + self.a_s) + self._shift()
        return wide.to(weight.dtype), (own + self.scale * added).to(bias.dtype)

    def forward(self, x: Tensor, base: Base) -> Tensor:
        y = base(x)
        beside = F.linear(x, self.A_p.to(x.dtype), _to(self.a_p, x))
        behind = F.linear(y, self.A_s.to(y.dtype), _to(self.a_s, y))
        # the two second maps are one product of width 2 k
        hidden = F.dropout(torch.cat((beside, behind), -1), self.dropout, self.training)
        up = self.scale * torch.cat((self.B_p, self.B_s), 1)
        shift = None if self.c_p is None else self.scale * self._shift()
        return y + F.linear(hidden, up.to(hidden.dtype), _to(shift, hidden))

    def _shift(self) -> Tensor:
        assert self.c_p is not None and self.c_s is not None
        return self.c_p + self.c_s


def _to(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)


class Hydra(AdapterMethod):
    """`vision.hydra`."""

    Config: ClassVar[type[HydraConfig]] = HydraConfig
    Delta: ClassVar[type[HydraDelta]] = HydraDelta
    kinds = ("linear", "linear_t", "packed_attention")
    fallbacks = (("all-linear",),)
    keeps_output = True

    def check(self, plan: SitePlan, config: Any) -> None:
        refuse_dropout(plan, config.dropout)

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "k (in + 3 out) + 2 (k + out) a layer"
