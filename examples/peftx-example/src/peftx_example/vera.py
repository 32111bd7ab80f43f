"""example.vera: two trained vectors a site, and one bank of random matrices for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters import AdapterMethod, Base, Delta, Site, SitePlan
from peftx_example.config import VeraConfig


class Bank(nn.Module):
    """A (R, largest in) and B (largest out, R), Kaiming-uniform from the configuration's seed.

    Frozen, they follow from that seed, so they are buffers that no file holds; trained, they are stored once.
    """

    A: Tensor
    B: Tensor

    def __init__(self, shapes: dict[str, tuple[int, int]], config: VeraConfig) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        for name, shape in shapes.items():
            value = nn.init.kaiming_uniform_(torch.empty(shape), generator=generator)
            if config.train_bank:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value, persistent=False)


class VeraDelta(Delta):
    """``W' = W + diag(b) B diag(d) A``, with d (R,), b (out,) starting at zero, and A, B of the bank.

    A smaller site takes the leading columns of A (R, in) and the leading rows of B (out, R).

    Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", ICLR 2024, arXiv 2310.11454. With `train_bank`:
    Renduchintala et al., "Tied-LoRA", NAACL 2024, arXiv 2311.09578.
    """

    bank: Bank

    def __init__(
        self, site: Site, config: VeraConfig, weight: Tensor, bias: Tensor | None, bank: Bank
    ) -> None:
        super().__init__(site, bank)
        dtype = self.parameter_dtype(site.dtype)
        self.d = nn.Parameter(torch.full((config.rank,), config.d_start, dtype=dtype))
        self.b = nn.Parameter(torch.zeros(site.shape[0], dtype=dtype))

    def rank_factors(self) -> tuple[Tensor, Tensor]:
        """(diag(b) B, diag(d) A), shapes (out, R) and (R, in)."""
        out, width = self.site.shape
        return self.b[:, None] * self.bank.B[:out], self.d[:, None] * self.bank.A[:, :width]

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        left, right = self.rank_factors()
        return weight + (left @ right).to(weight.dtype), bias

    def forward(self, x: Tensor, base: Base) -> Tensor:
        left, right = self.rank_factors()
        y = base(x)
        return y + F.linear(F.linear(x, right.to(x.dtype)), left.to(x.dtype)).to(y.dtype)

    @staticmethod
    def param_count(site: Site, config: VeraConfig) -> int:
        return config.rank + site.shape[0]


class Vera(AdapterMethod):
    """`example.vera`."""

    Config = VeraConfig
    Delta = VeraDelta
    kinds = ("linear", "linear_t", "packed_attention")

    def shapes(self, plan: SitePlan, config: VeraConfig) -> dict[str, tuple[int, int]]:
        """What the bank has to hold for the largest of the sites."""
        out, width = (max(site.shape[i] for site in plan) for i in (0, 1))
        return {"A": (config.rank, width), "B": (out, config.rank)}

    def bank(self, plan: SitePlan, config: VeraConfig) -> nn.Module:
        return Bank(self.shapes(plan, config), config)

    def bank_count(self, plan: SitePlan, config: VeraConfig) -> int:
        return sum(a * b for a, b in self.shapes(plan, config).values()) if config.train_bank else 0

    def formula(self, sites: Sequence[Site], config: VeraConfig) -> str:
        return "R + out a site" + (", and one bank of R (max out + max in)" if config.train_bank else "")
