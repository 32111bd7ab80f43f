"""rsLoRA: LoRA whose scale keeps the update's size stable as the rank grows."""

from __future__ import annotations

import math
from typing import ClassVar

from peftx.adapters.methods.lora import LoRA, LoRADelta
from peftx.adapters.site import Site
from peftx.config.methods import LoRAConfig, RsLoRAConfig

__all__ = ["RsLoRA", "RsLoRADelta"]


class RsLoRADelta(LoRADelta):
    r"""``W' = W + (alpha / sqrt(R)) B A``: LoRA with alpha sqrt(R) in place of alpha.

    Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023, arXiv 2312.03732.
    """

    @classmethod
    def scale_of(cls, site: Site, config: LoRAConfig) -> float:
        return super().scale_of(site, config) * math.sqrt(cls.rank_of(site, config))


class RsLoRA(LoRA):
    """`core.rslora`."""

    Config = RsLoRAConfig
    Delta: ClassVar[type[LoRADelta]] = RsLoRADelta
