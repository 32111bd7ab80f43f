"""DoRA: LoRA on the direction of every weight row, and a trained magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta
from peftx.adapters.methods.lora import _LINEAR, LoRA, LoRADelta
from peftx.adapters.methods.row_lengths import RowLengths
from peftx.adapters.site import Site
from peftx.config.methods import DoRAConfig, LoRAConfig
from peftx.errors import AdapterError
from peftx_kernels import dora_linear, row_sq

__all__ = ["DoRA", "DoRADelta"]


class DoRADelta(LoRADelta):
    r"""``W' = diag(m / n) (W + s B A)`` with n the row norms of ``W + s B A``, constant in the backward.

    m (out,) starts as the row norms of W, so training starts at the base model. Rows are those of the canonical
    weight: outputs of a layer, kernels of a convolution, and the width of an embedding (its norm runs over the
    vocabulary). The norm is computed in float32 from thin factors, never from a dense B A on the linear path, and
    once for each state of W, A and B: not again for a further micro-batch, nor where a checkpoint repeats the forward
    pass (`RowLengths` says what it notices). After writing through ``.data`` outside of an optimizer's step, call
    `invalidate`.

    With dropout the LoRA term sees the dropped input and the base term does not, as in HF PEFT.

    Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, arXiv 2402.09353 (the norm is detached by its
    section 4.3); factored norm after Zelenin and Zhuravlyova, 2026, arXiv 2603.22276.
    """

    def __init__(self, site: Site, config: LoRAConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        if weight.is_meta:
            raise AdapterError(
                f"the magnitudes of {site.key} start as the lengths of its weight's rows, which a model on the meta "
                "device does not have; load the weights first"
            )
        # with B = 0 the norm of the forward is this to the last bit, so the first gain is exactly one
        start = row_sq(weight.flatten(1)).clamp_min(1e-24).sqrt()
        self.m = nn.Parameter(start.to(self.parameter_dtype(site.dtype)))
        self._lengths = RowLengths()

    def invalidate(self) -> None:
        """Measure the rows anew in the next forward pass."""
        self._lengths.forget()

    @classmethod
    def scale_of(cls, site: Site, config: LoRAConfig) -> float:
        scale = super().scale_of(site, config)
        stable = isinstance(config, DoRAConfig) and config.rank_stabilised
        return scale * math.sqrt(cls.rank_of(site, config)) if stable else scale

    @classmethod
    def param_count(cls, site: Site, config: LoRAConfig) -> int:
        """R (out + in) + out."""
        return super().param_count(site, config) + site.shape[0]

    def _norms(self, matrix: Tensor) -> Tensor:
        return self._lengths.norms(matrix, self.A, self.B, self.scale)

    def gain(self, matrix: Tensor) -> Tensor:
        """m / n, shape (out,), float32."""
        return self.m / self._norms(matrix).clamp_min(1e-12)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        gain = self.gain(weight.flatten(1)).view(-1, *(1,) * (weight.dim() - 1))
        wide = torch.promote_types(weight.dtype, torch.float32)
        return (gain * (weight.to(wide) + self.update())).to(weight.dtype), bias

    def effective_(self, matrix: Tensor) -> None:
        """Write ``diag(m / n) (W + s B A)`` into W itself, an (out, in) matrix of float32 or float64."""
        gain = self.gain(matrix)
        matrix.addmm_((self.scale * self.B).to(matrix.dtype), self.A.to(matrix.dtype)).mul_(
            gain.to(matrix.dtype).unsqueeze(1)
        )

    def forward(self, x: Tensor, base: Base) -> Tensor:
        if base.kind in _LINEAR and base.raw:
            weight = base.weight
            options = self._options(x, base)
            return dora_linear(
                x,
                weight,
                base.bias,
                self.A,
                self.B,
                self.m,
                self.scale,
                norm=self._norms(weight),
                **options,
            )
        if base.kind == "embedding" and base.raw and base.module.max_norm is None:
            y = self._embed(x, base)
            return self.gain(base.weight).to(y.dtype) * y
        if not (self.dropout and self.training) or base.kind == "embedding":
            return base.run(x, *self.effective(base.weight, base.bias))
        weight = base.weight
        gain = self.gain(weight.flatten(1))
        shape = (-1,) if base.kind in _LINEAR else (-1, *(1,) * (weight.dim() - 2))
        dropped = F.dropout(x, self.dropout, True)
        y = base.run(x, weight, None) + base.run(dropped, self.update().to(x.dtype), None)
        y = gain.view(shape).to(y.dtype) * y
        return y if base.bias is None else y + base.bias.view(shape)

    def forward_rows(self, deltas: Sequence[Delta], x: Tensor, base: Base) -> Tensor:
        return Delta.forward_rows(self, deltas, x, base)

    def rank_factors(self) -> None:  # type: ignore[override]
        return None


class DoRA(LoRA):
    """`core.dora`."""

    Config = DoRAConfig
    Delta: ClassVar[type[LoRADelta]] = DoRADelta
    needs_full_weight = True

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "R (out + in) + out a site"
