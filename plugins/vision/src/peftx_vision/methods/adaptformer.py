"""AdaptFormer: a bottleneck beside the feed-forward network of every block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.insert import Insert
from peftx.adapters.method import AdapterMethod, is_chosen
from peftx.adapters.site import Site, SitePlan
from peftx_kernels import bottleneck
from peftx_vision.config.adaptformer import AdaptFormerConfig
from peftx_vision.methods.bottleneck_insert import BottleneckInsert
from peftx_vision.methods.halves import beside_the_mlp
from peftx_vision.methods.head_norm import HeadNorm, heads

__all__ = ["AdaptFormer", "AdaptFormerInsert"]

_EPS = 1e-5


class AdaptFormerInsert(BottleneckInsert):
    r"""``out = H + MLP(LN2(H)) + A(H)`` with H (B, T, d) the stream behind the attention.

        A(h) = s (U drop(relu(D h + b_D)) + b_U)

    A reads H, not LN2(H), and is added to what the block returns, so that the block's LayerScale and drop-path do not
    touch it. In the sequential form it is ``y + A(y)``, y the MLP's output. D (k, d) is uniform within 1 / sqrt(d), U
    (d, k) and the biases are zero. Parameters are at least float32; the products run in the type of the activations.

    Chen et al., "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition", NeurIPS 2022,
    arXiv 2205.13535.
    """

    def __init__(self, site: Site, config: AdaptFormerConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.read = "tap" if config.form == "parallel" else "output"
        self.dropout, self.activation, self.norm = config.dropout, config.activation, config.norm
        width, hidden, dtype = site.shape[0], config.width, self.parameter_dtype(site.dtype)

        def full(value: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value, dtype=dtype))

        self.down, self.up = full(0.0, hidden, width), full(0.0, width, hidden)
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.down_bias = full(0.0, hidden) if config.bias else None
        self.up_bias = full(0.0, width) if config.bias else None
        self.norm_weight = None if config.norm == "none" else full(1.0, width)
        self.norm_bias = None if config.norm == "none" else full(0.0, width)
        self.scale: float | nn.Parameter = full(1.0, 1) if config.learn_scale else config.scale

    @classmethod
    def param_count(cls, site: Site, config: AdaptFormerConfig) -> int:
        """2 k d, k + d of biases, 2 d of a norm, 1 of a trained factor."""
        width, hidden = site.shape[0], config.width
        biases = hidden + width if config.bias else 0
        norm = 0 if config.norm == "none" else 2 * width
        return 2 * hidden * width + biases + norm + int(config.learn_scale)

    def insert(self, x: Tensor) -> Tensor:
        added = super().insert(x)
        if self.norm != "out":
            return added
        assert self.norm_weight is not None and self.norm_bias is not None
        high = added.to(self.norm_weight.dtype)
        return F.layer_norm(high, high.shape[-1:], self.norm_weight, self.norm_bias, _EPS)

    def add(self, y: Tensor, x: Tensor) -> Tensor:
        if self.norm == "out":  # the norm is between the two
            return y + self.insert(x.reshape(y.shape)).to(y.dtype)
        return super().add(y, x)

    def run(self, x: Tensor, residual: Tensor | None) -> Tensor:
        normed = self.norm == "in"
        return bottleneck(
            x,
            self.down,
            self.up,
            down_bias=self.down_bias,
            up_bias=self.up_bias,
            residual=residual,
            scale=self.scale,
            activation=self.activation,
            norm_weight=self.norm_weight if normed else None,
            norm_bias=self.norm_bias if normed else None,
            norm_eps=_EPS if normed else None,
            dropout=self.dropout,
            training=self.training,
        )


class AdaptFormer(AdapterMethod):
    """`vision.adaptformer`."""

    Config: ClassVar[type[AdaptFormerConfig]] = AdaptFormerConfig
    Delta: ClassVar[type[AdaptFormerInsert]] = AdaptFormerInsert
    kinds = ("activation",)
    fallbacks = ()

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        branches = self._branches(model, config)
        return branches + heads(model) if config.head_norm == "batch" else branches

    def _branches(self, model: nn.Module, config: Any) -> SitePlan:
        if config.form == "sequential":
            if not is_chosen(config, "targets"):
                config = config.model_copy(update={"targets": ["mlp"]})
            return super().plan(model, config)
        blocks = super().plan(model, config)
        return beside_the_mlp(blocks, model, normed=config.input == "normed", other="form to sequential")

    def build(
        self, site: Site, config: Any, weight: Tensor, bias: Tensor | None, bank: nn.Module | None = None
    ) -> Insert:
        if site.role == "head":
            return HeadNorm(site)
        return self.Delta(site, config, weight, bias)

    def param_count(self, site: Site, config: Any) -> int:
        return 0 if site.role == "head" else super().param_count(site, config)

    def buffer_bytes(self, site: Site, config: Any) -> int:
        return HeadNorm.buffer_bytes(site) if site.role == "head" else 0

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        parts = ["2 k d", *(["k + d"] if config.bias else []), *(["2 d"] if config.norm != "none" else [])]
        return f"{' + '.join(parts)}{' + 1' if config.learn_scale else ''} a block"
