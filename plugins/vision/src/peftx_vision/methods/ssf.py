"""SSF: every layer's output scaled and shifted, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site, SitePlan
from peftx.errors import SelectionError
from peftx_vision.config.ssf import SSFConfig

__all__ = ["SSF", "SSFDelta"]

_STD = 0.02


class SSFDelta(Delta):
    r"""``y' = gamma * y + beta`` with y the layer's output, gamma and beta (out,), over the channels.

    Written into the layer it is exact, whatever the layer's stride, groups or padding:

        W' = diag(gamma) W        b' = gamma * b + beta

    and of a normalisation's affine step (w, v) likewise w' = gamma * w, v' = gamma * v + beta. The channel axis is the
    layer's own: the last of a linear layer's output, the second of a convolution's. gamma and beta are at least
    float32; the sum is formed so and rounded once to the output's dtype. With gamma = 1 and beta = 0 the output is the
    layer's own, bit for bit. A layer without a bias has gamma alone.

    Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning", NeurIPS 2022,
    arXiv 2210.08823.
    """

    changes_bias = True

    def __init__(self, site: Site, config: SSFConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        dtype, shape = self.parameter_dtype(site.dtype), self._channels(site)
        self.gamma = nn.Parameter(torch.ones(shape, dtype=dtype))
        self.beta = None if bias is None else nn.Parameter(torch.zeros(shape, dtype=dtype))
        if config.init == "normal":
            self.reset()

    def reset(self) -> None:
        """Draw gamma and beta as the official code does."""
        with torch.no_grad():
            self.gamma.normal_(1.0, _STD)
            if self.beta is not None:
                self.beta.normal_(0.0, _STD)

    @staticmethod
    def _channels(site: Site) -> tuple[int, ...]:
        return site.shape if site.kind == "norm" else site.shape[:1]

    @classmethod
    def param_count(cls, site: Site, config: SSFConfig) -> int:
        """2 out, or out where there is no bias."""
        size = site.numel if site.kind == "norm" else site.shape[0]
        return size if site.bias is None else 2 * size

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gamma = self.gamma.view(*self.gamma.shape, *(1,) * (weight.dim() - self.gamma.dim()))
        if bias is not None and self.beta is not None:
            bias = torch.addcmul(self.beta, self.gamma, bias.to(self.gamma.dtype)).to(bias.dtype)
        return (weight * gamma).to(weight.dtype), bias

    def forward(self, x: Tensor, base: Base) -> Tensor:
        # after the product: scaled weights would get gradients of their own size, another product a layer
        y = base(x)
        ones = (1,) * (len(self.site.shape) - 2)
        gamma = self.gamma.view(-1, *ones)
        beta = None if self.beta is None else self.beta.view(-1, *ones)
        if beta is not None and y.dtype == gamma.dtype:
            return torch.addcmul(beta, y, gamma)
        scaled = y * gamma
        return (scaled if beta is None else scaled + beta).to(y.dtype)


class SSF(AdapterMethod):
    """`vision.ssf`."""

    Config: ClassVar[type[SSFConfig]] = SSFConfig
    Delta: ClassVar[type[SSFDelta]] = SSFDelta
    kinds = ("linear", "linear_t", "conv1d", "conv2d", "packed_attention", "norm")
    fallbacks = (("all-linear",),)
    starts_as = "shifted"
    keeps_input, keeps_output = False, True

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        found = super().plan(model, config)
        if config.without_bias == "scale":
            return found
        kept = SitePlan(tuple(site for site in found if site.bias is not None))
        if len(found) and not len(kept):
            raise SelectionError(
                f"no layer that is targeted has a bias to take a shift ({found.keys[0]} has none, for one); "
                "set without_bias to scale to scale them only"
            )
        return kept

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "2 out a layer" if config.without_bias == "skip" else "2 out a layer, out where it has no bias"
