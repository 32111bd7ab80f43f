"""SNELL: a sparse update of full rank, made from thin factors by a kernel and by competition inside each map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import parameter_sites
from peftx.errors import ConfigError
from peftx_kernels import SnellPart, activation_source, snell_linear, snell_update
from peftx_kernels.context import compute_dtype
from peftx_vision.config.methods import SNELLConfig

__all__ = ["SNELL", "SNELLDelta"]

_LINEAR = frozenset({"linear", "linear_t", "packed_attention"})
_GROUPS = 2


class SNELLDelta(Delta):
    r"""``W' = W + S^T`` with S sparse, of full rank, and a function of thin factors.

    With A (2, in, d) and B (2, out, d), d = R / 2:

        D_h[i, j] = ||A_h[i] - B_h[j]||_2        V = c (D_0 - D_1)        (in, out)
        t = quantile_s(|V|) over the whole map    S = V |V| 1[|V| > t]

    The factor |V| 1[.] is a constant in the backward, t gets no gradient; other modes are in `SnellPart`. At s = 0 the
    mode official is the plain kernel S = V. A convolution's kernel is folded into `in`.

    The update is not zero at the start: for unit-variance inputs of a 768-wide map it adds a signal of rms 8e-5 at
    rank 8 (0.035 at s = 0).

    Shen et al., "Expanding Sparse Tuning for Low Memory Usage", NeurIPS 2024, arXiv 2411.01800.
    """

    def __init__(self, site: Site, config: SNELLConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        out, width = site.matrix
        self.sparsity = config.sparsity
        self.mode = "dense" if config.sparsity == 0 and config.mode == "official" else config.mode
        self.scale = config.scale
        self.dropout, self.drop_path = config.dropout, config.drop_path
        dtype, size = self.parameter_dtype(site.dtype), config.rank // _GROUPS
        self.A = nn.Parameter(torch.empty(_GROUPS, width, size, dtype=dtype))
        self.B = nn.Parameter(torch.empty(_GROUPS, out, size, dtype=dtype))
        self.reset()

    def reset(self) -> None:
        """Fill A and B as at the start: uniform within 1 / sqrt(in d) and 1 / sqrt(out d)."""
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
            nn.init.kaiming_uniform_(self.B, a=math.sqrt(5))

    @classmethod
    def param_count(cls, site: Site, config: SNELLConfig) -> int:
        """R (out + in)."""
        return config.rank * sum(site.matrix)

    def part(self) -> SnellPart:
        """What the kernels are told of this map."""
        start, stop = self.site.rows or (0, self.site.shape[0])
        return SnellPart(start, stop, self.A, self.B, self.rate(), self.mode, self._mix(), self.scale)

    def rate(self) -> float | Tensor:
        """s, the share of entries that is left out; a tensor only where a compiler traces."""
        return self.sparsity

    def _mix(self) -> tuple[Tensor, Tensor, Tensor] | None:
        return None

    def update(self) -> Tensor:
        """S^T, dense and at least float32, shaped like the canonical weight."""
        return snell_update(self.part()).view(self.site.shape)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        # the sum is formed wide and rounded once: |S| begins far below a half-precision weight's last place
        return (weight + self.update()).to(weight.dtype), bias

    def forward(self, x: Tensor, base: Base) -> Tensor:
        if base.kind in _LINEAR and base.raw:
            part = self.part()
            return snell_linear(
                x,
                base.weight,
                base.bias,
                [part._replace(start=0, stop=part.stop - part.start)],
                **self._options(x, base),
            )
        dtype = compute_dtype(x)
        dropped = self.training and (self.dropout or self.drop_path)
        if dropped or dtype.itemsize < 4:
            # a sum rounded to half precision would be the weight alone
            update = self.update()
            step = _power_of_two(update) if dtype is torch.float16 else None
            small = update if step is None else update / step
            added = base.run(self._dropped(x) if dropped else x, small.to(x.dtype), None)
            return base(x) + (added if step is None else (added.float() * step).to(added.dtype))
        return base.run(x, *self.effective(base.weight, base.bias))

    def forward_rows(self, deltas: Sequence[Delta], x: Tensor, base: Base) -> Tensor:
        these = cast("Sequence[SNELLDelta]", deltas)
        rates = {(delta.dropout, delta.drop_path) for delta in these}
        if not base.raw or len(rates) > 1:
            return super().forward_rows(deltas, x, base)
        parts = [delta.part() for delta in these]
        return snell_linear(x, base.weight, base.bias, parts, **self._options(x, base))

    @torch.no_grad()
    def sparse(self) -> tuple[Tensor, Tensor] | None:
        """(flat indices, values) of the update where they take less room than the whole map."""
        update = self.update().flatten()
        indices = update.nonzero().view(-1)
        # an index is eight bytes beside a value's four
        return (indices, update[indices]) if 3 * len(indices) < update.numel() else None

    def _options(self, x: Tensor, base: Base) -> dict[str, Any]:
        source = activation_source(x) if base.recompute else None
        rates = {"dropout": self.dropout, "drop_path": self.drop_path, "training": self.training}
        return {**rates, "source": source}

    def _dropped(self, x: Tensor) -> Tensor:
        x = F.dropout(x, self.dropout) if self.dropout else x
        if self.drop_path:
            x = x * F.dropout(x.new_ones((x.shape[0], *(1,) * (x.dim() - 1))), self.drop_path)
        return x


def _power_of_two(update: Tensor) -> Tensor:
    """What brings the largest entry to between 1/2 and 1: entries near 1e-6 are subnormal in float16."""
    exponent = torch.frexp(update.detach().abs().amax().clamp_min(2.0**-100)).exponent
    return torch.ldexp(update.new_ones(()), exponent)


class SNELL(AdapterMethod):
    """`vision.snell`."""

    Config: ClassVar[type[SNELLConfig]] = SNELLConfig
    Delta: ClassVar[type[SNELLDelta]] = SNELLDelta
    kinds = ("linear", "linear_t", "conv1d", "conv2d", "packed_attention")
    starts_as = "shifted"

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        owned = super().owned(model, config)
        if not config.train_cls:
            return owned
        have = {site.key for site in owned}
        tokens = [
            site
            for site in parameter_sites(model)
            if site.role == "embedding.class" and "cls" in site.weight and site.key not in have
        ]
        if not tokens:
            raise ConfigError(
                "train_cls asks for a class token, which this model does not have; leave it off"
            )
        return SitePlan((*owned, *tokens))

    def check(self, plan: SitePlan, config: Any) -> None:
        for site in plan:
            if (config.dropout or config.drop_path) and not site.product:
                raise ConfigError(
                    f"dropout cannot act on {site.key}: its weight is read without its layer being called "
                    f"({site.kind}), so its input is never seen; set dropout and drop_path to 0 or exclude the site"
                )
            if config.drop_path and site.batch_dim:
                raise ConfigError(
                    f"drop_path leaves out samples, which {site.key} has in dimension {site.batch_dim} of its input; "
                    "it takes inputs with samples first: set drop_path to 0 or exclude the site"
                )

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "R (out + in) a map"
