"""LoRA: a trained low-rank update beside a frozen weight."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.base import Base, Rows
from peftx.adapters.delta import Delta
from peftx.adapters.method import AdapterMethod, refuse_dropout
from peftx.adapters.site import Site, SitePlan
from peftx.config.methods import LoRAConfig
from peftx.errors import ConfigError
from peftx_kernels import Groups, activation_source, grouped_lora, lora_linear, lora_linear_slices

__all__ = ["LoRA", "LoRADelta"]

_LINEAR = frozenset({"linear", "linear_t", "packed_attention"})


def _own(pattern: dict[str, Any], key: str, default: Any) -> Any:
    """A site's own value: the first pattern that matches the end of its key."""
    for expression, value in pattern.items():
        if re.fullmatch(rf"(.*\.)?({expression})", key):
            return value
    return default


class LoRADelta(Delta):
    r"""``W' = W + s B A`` with B (out, R), A (R, in) and s = alpha / R.

    A linear layer gives ``y = W x + b + s B (A drop(x))``. A convolution's A has the kernel, stride, padding and
    dilation of the layer and B is 1 x 1; with groups the update is the product reshaped like the weight. An
    embedding's A is indexed. B starts at zero (A, for an embedding), so training starts at the base model.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685.
    """

    def __init__(self, site: Site, config: LoRAConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        out, width = site.matrix
        self.rank = self.rank_of(site, config)
        self.scale = self.scale_of(site, config)
        self.dropout = config.dropout
        dtype = self.parameter_dtype(site.dtype)
        self.A = nn.Parameter(torch.empty(self.rank, width, dtype=dtype))
        self.B = nn.Parameter(torch.empty(out, self.rank, dtype=dtype))
        self.reset(config)

    def reset(self, config: LoRAConfig) -> None:
        """Fill A and B as at the start of training."""
        with torch.no_grad():
            if self.site.kind == "embedding":
                self.A.zero_()
                self.B.normal_()
                return
            if config.init == "gaussian":
                self.A.normal_(std=1 / self.rank)
            elif config.init == "normal":
                self.A.normal_(std=1 / math.sqrt(3 * self.A[0].numel()))
            else:
                nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
            self.B.zero_()

    @staticmethod
    def rank_of(site: Site, config: LoRAConfig) -> int:
        """The site's rank: its own by `rank_pattern`, else the common one."""
        return int(_own(config.rank_pattern, site.key, config.rank))

    @classmethod
    def scale_of(cls, site: Site, config: LoRAConfig) -> float:
        """s = alpha / R with the site's own alpha and rank."""
        return float(_own(config.alpha_pattern, site.key, config.alpha)) / cls.rank_of(site, config)

    @classmethod
    def param_count(cls, site: Site, config: LoRAConfig) -> int:
        """R (out + in)."""
        return cls.rank_of(site, config) * sum(site.matrix)

    def update(self) -> Tensor:
        """s B A, reshaped like the canonical weight."""
        return (self.scale * (self.B @ self.A)).view(self.site.shape)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.update().to(weight.dtype), bias

    def forward(self, x: Tensor, base: Base) -> Tensor:
        if base.kind in _LINEAR:
            if base.raw:
                return lora_linear(
                    x, base.weight, base.bias, self.A, self.B, self.scale, **self._options(x, base)
                )
            return base(x) + self.scale * F.linear(
                F.linear(self._dropped(x), self.A.to(x.dtype)), self.B.to(x.dtype)
            )
        if base.kind == "embedding":
            return self._embed(x, base)
        return self._convolve(x, base)

    def forward_rows(self, deltas: Sequence[Delta], x: Tensor, base: Base) -> Tensor:
        if not base.raw:
            return super().forward_rows(deltas, x, base)
        parts = [
            (*cast("tuple[int, int]", delta.site.rows), delta.A, delta.B, delta.scale)
            for delta in cast("Sequence[LoRADelta]", deltas)
        ]
        return lora_linear_slices(x, base.weight, base.bias, parts, **self._options(x, base))

    @classmethod
    def grouped(
        cls, deltas: Sequence[Sequence[Delta]], groups: Groups, x: Tensor, base: Base
    ) -> Tensor | None:
        found = [(group, cast("LoRADelta", delta)) for group, own in enumerate(deltas) for delta in own]
        rates = {delta.dropout if delta.training else 0.0 for _, delta in found}
        if base.kind not in _LINEAR or len(rates) > 1:
            return None
        whole = (0, base.weight.shape[0])
        parts = [(group, *(d.site.rows or whole), d.A, d.B, d.scale) for group, d in found]
        return grouped_lora(x, base.weight, base.bias, groups, parts, **found[0][1]._options(x, base))

    def rank_factors(self) -> tuple[Tensor, Tensor]:
        return self.scale * self.B, self.A

    def _options(self, x: Tensor, base: Base) -> dict[str, Any]:
        source = activation_source(x) if base.recompute else None
        return {"dropout": self.dropout, "training": self.training, "source": source}

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _embed(self, x: Tensor, base: Base) -> Tensor:
        if isinstance(base, Base) and base.raw and base.module.max_norm is None:
            module = base.module
            rows = F.embedding(x, self.A.t(), module.padding_idx, None, 2.0, module.scale_grad_by_freq, False)
            y = base(x)
            return y + self.scale * F.linear(rows, self.B).to(y.dtype)
        # a norm limit applies to the updated rows, so these have to exist
        return base.run(x, *self.effective(base.weight, base.bias))

    def _convolve(self, x: Tensor, base: Base) -> Tensor:
        y = base(x)
        dropped = self._dropped(x)
        if self.site.groups > 1 or isinstance(base, Rows):
            return y + base.run(dropped, self.update().to(x.dtype), None)
        rank, kernel = self.rank, self.site.shape[1:]
        low = base.run(dropped, self.A.view(rank, *kernel).to(x.dtype), None)
        ones = (1,) * len(kernel[1:])
        convolve = F.conv1d if len(ones) == 1 else F.conv2d
        return y + self.scale * convolve(low, self.B.view(*self.B.shape, *ones).to(x.dtype))


class LoRA(AdapterMethod):
    """`core.lora`."""

    Config = LoRAConfig
    Delta: ClassVar[type[LoRADelta]] = LoRADelta
    kinds: ClassVar[tuple[str, ...]] = (
        "linear",
        "linear_t",
        "conv1d",
        "conv2d",
        "embedding",
        "packed_attention",
    )

    def check(self, plan: SitePlan, config: Any) -> None:
        refuse_dropout(plan, config.dropout)
        for site in plan:
            rank = self.Delta.rank_of(site, config)
            if rank < 1:
                raise ConfigError(f"the rank of {site.key} must be at least 1, got {rank}; mend rank_pattern")

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "R (out + in) a site"
