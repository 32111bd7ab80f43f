"""Bi-AdaptFormer and Bi-LoRA: adapters of one, two or four bits an entry, quantised while they are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.base import Base
from peftx.adapters.delta import Owned
from peftx.adapters.method import AdapterMethod, refuse_dropout
from peftx.adapters.site import Site, SitePlan
from peftx.errors import ConfigError
from peftx_kernels import bottleneck
from peftx_vision.config.bi_adapter import BiAdaptFormerConfig, BiLoRAConfig
from peftx_vision.methods.bottleneck_insert import BottleneckInsert
from peftx_vision.methods.halves import beside_the_mlp
from peftx_vision.methods.low_bit_maps import LowBitHead, LowBits, NoBias, is_head_bias, is_head_matrix
from peftx_vision.methods.low_bits import packed_bytes

__all__ = ["BiAdaptFormer", "BiAdaptFormerInsert", "BiLoRA", "BiLoRADelta"]

_STD = 1e-3


class _Maps(LowBits):
    """The two maps of an adapter, D (k, in) and U (out, k), trained in full and used in a few values each."""

    def __init__(self, site: Site, config: BiAdaptFormerConfig) -> None:
        super().__init__(site)
        self.scale, self.dropout = config.scale, config.dropout
        dtype, (down, up) = self.parameter_dtype(site.dtype), self.shapes(site, config)
        self.down = nn.Parameter(torch.empty(down, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(up, dtype=dtype))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        if config.bits < 32:  # a tensor of zeros has no deviation to be quantised by
            nn.init.trunc_normal_(self.up, std=_STD, a=-2 * _STD, b=2 * _STD)
        self.keep(config.bits, "down", "up")

    @classmethod
    def shapes(cls, site: Site, config: BiAdaptFormerConfig) -> tuple[tuple[int, int], tuple[int, int]]:
        """Those of D and U: of a layer, or of the width of a stream."""
        out, width = site.matrix if len(site.shape) > 1 else site.shape * 2
        return (config.width, width), (out, config.width)

    @classmethod
    def param_count(cls, site: Site, config: BiAdaptFormerConfig) -> int:
        """k (in + out); beside an MLP 2 k d."""
        return sum(math.prod(shape) for shape in cls.shapes(site, config))

    def maps(self) -> tuple[Tensor, Tensor]:
        """D and U, as they act."""
        return self.acting("down"), self.acting("up")


class BiAdaptFormerInsert(_Maps, BottleneckInsert):
    r"""``out = H + MLP(LN2(H)) + s U drop(relu(D H))``, H (B, T, d) the stream in front of LN2; no biases.

    Jie et al., "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy", ICCV
    2023, arXiv 2307.16867.
    """

    read = "tap"

    def __init__(self, site: Site, config: BiAdaptFormerConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config)

    def run(self, x: Tensor, residual: Tensor | None) -> Tensor:
        down, up = self.maps()
        return bottleneck(
            x,
            down,
            up,
            residual=residual,
            scale=self.scale,
            activation="relu",
            dropout=self.dropout,
            training=self.training,
        )


class BiLoRADelta(_Maps):
    """``y = W x + s U drop(D x)``, so W' = W + s U D; of the same paper."""

    def __init__(self, site: Site, config: BiLoRAConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config)

    @staticmethod
    def rank_of(site: Site, config: BiLoRAConfig) -> int:
        """k."""
        return config.width

    def rank_factors(self) -> tuple[Tensor, Tensor]:
        down, up = self.maps()
        return self.scale * up, down

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        up, down = self.rank_factors()
        return (weight + (up @ down).view(weight.shape)).to(weight.dtype), bias

    def forward(self, x: Tensor, base: Base) -> Tensor:
        down, up = self.maps()
        y = base(x)
        hidden = F.dropout(F.linear(x, down.to(x.dtype)), self.dropout, self.training)
        return y + F.linear(hidden, (self.scale * up).to(hidden.dtype))


class _Method(AdapterMethod):
    fallbacks: ClassVar[tuple[tuple[str, ...], ...]] = ()
    starts_as = "shifted"

    def stored_bytes(self, site: Site, config: Any) -> int:
        """Of D and U b bits an entry, and mean and deviation."""
        if config.bits == 32:
            return super().stored_bytes(site, config)
        shapes, width = self.Delta.shapes(site, config), Owned.parameter_dtype(site.dtype).itemsize
        return sum(packed_bytes(math.prod(shape), config.bits, width) for shape in shapes)

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        found = super().owned(model, config)
        if config.head_bits == 32:
            return found
        layers = {site.module for site in found if is_head_matrix(site)}
        alone = [site.key for site in found if is_head_bias(site) and site.module not in layers]
        if not layers or alone:
            what = f"only {alone[0]}" if alone else "no head"
            raise ConfigError(
                f"head_bits = {config.head_bits} is for the weights of heads, and this adapter owns {what}; name the "
                "whole head in also_train, or leave head_bits at 32"
            )
        return found

    def own(self, site: Site, config: Any, value: Tensor | nn.Parameter) -> Owned:
        if config.head_bits < 32 and is_head_matrix(site):
            return LowBitHead(site, value, config.head_bits)
        if config.head_bits < 32 and is_head_bias(site):
            return NoBias(site, value)
        return super().own(site, config, value)

    def owned_count(self, site: Site, config: Any) -> int:
        return 0 if config.head_bits < 32 and is_head_bias(site) else super().owned_count(site, config)

    def owned_bytes(self, site: Site, config: Any) -> int:
        if config.head_bits < 32 and is_head_matrix(site):
            return packed_bytes(site.numel, config.head_bits, Owned.parameter_dtype(site.dtype).itemsize)
        return super().owned_bytes(site, config)


class BiAdaptFormer(_Method):
    """`vision.bi_adaptformer`."""

    Config: ClassVar[type[BiAdaptFormerConfig]] = BiAdaptFormerConfig
    Delta: ClassVar[type[BiAdaptFormerInsert]] = BiAdaptFormerInsert
    kinds = ("activation",)

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        return beside_the_mlp(super().plan(model, config), model)

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "2 k d a block"


class BiLoRA(_Method):
    """`vision.bi_lora`."""

    Config: ClassVar[type[BiLoRAConfig]] = BiLoRAConfig
    Delta: ClassVar[type[BiLoRADelta]] = BiLoRADelta
    kinds = ("linear", "linear_t", "packed_attention")
    fallbacks = (("all-linear",),)

    def check(self, plan: SitePlan, config: Any) -> None:
        refuse_dropout(plan, config.dropout)

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "k (in + out) a layer"
