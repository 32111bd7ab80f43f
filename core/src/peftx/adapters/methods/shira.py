"""SHiRA: a few entries of the weight itself are trained; the rest of it stays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftx.adapters.delta import Delta
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site
from peftx.config.methods import ShiRAConfig
from peftx.errors import AdapterError

__all__ = ["ShiRA", "ShiRADelta"]


class ShiRADelta(Delta):
    r"""``W' = W + S`` with S zero but at K fixed entries, whose values v (K,) are trained.

    K = min(R (out + in), out in), so that the count is that of LoRA of rank R; the update has full rank all the same.
    v starts at zero, so training starts at the base model, and the scale is 1. The entries are a buffer of K flat
    indices into the canonical weight, saved with the adapter.

    Bhardwaj et al., "Sparse High Rank Adapters", NeurIPS 2024, arXiv 2406.13175.
    """

    indices: Tensor

    def __init__(self, site: Site, config: ShiRAConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        count = self.param_count(site, config)
        self.v = nn.Parameter(torch.zeros(count, dtype=self.parameter_dtype(site.dtype)))
        if config.mask == "magnitude" and weight.is_meta:
            raise AdapterError(
                f"the largest entries of {site.key} are unknown on the meta device; load the weights first, or "
                "choose mask='random'"
            )
        chosen = (
            weight.reshape(-1).abs().topk(count).indices.sort().values
            if config.mask == "magnitude"
            else _random_entries(site, config.seed, count)
        )
        self.register_buffer("indices", chosen.to(torch.int32 if site.numel < 2**31 else torch.int64))

    @staticmethod
    def param_count(site: Site, config: ShiRAConfig) -> int:
        """min(R (out + in), out in)."""
        out, width = site.matrix
        return min(config.rank * (out + width), out * width)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        matrix = weight.flatten(1)
        at = self.indices.long()
        rows, columns = at.div(matrix.shape[1], rounding_mode="floor"), at.remainder(matrix.shape[1])
        # not a scatter into a copy: adding at indices is exact, and its gradient reaches v alone
        return matrix.index_put((rows, columns), self.v.to(weight.dtype), accumulate=True).view(
            weight.shape
        ), bias

    def sparse(self) -> tuple[Tensor, Tensor]:
        return self.indices.long(), self.v


def _random_entries(site: Site, seed: int, count: int) -> Tensor:
    """`count` distinct entries, sorted; the same for a seed and a site's key on every device.

    Drawn and made distinct in rounds, since a permutation of all entries would take many times as long.
    """
    digest = hashlib.sha256(f"{seed}:{site.key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    if 2 * count > site.numel:
        return torch.randperm(site.numel, generator=generator)[:count].sort().values
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        more = torch.randint(site.numel, (count - len(found) + 16,), generator=generator)
        found = torch.cat((found, more)).unique()
    if len(found) > count:
        found = found[torch.randperm(len(found), generator=generator)[:count].sort().values]
    return found


class ShiRA(AdapterMethod):
    """`core.shira`."""

    Config = ShiRAConfig
    Delta: ClassVar[type[ShiRADelta]] = ShiRADelta
    kinds = ("linear", "linear_t", "conv1d", "conv2d", "embedding", "packed_attention")

    def buffer_bytes(self, site: Site, config: Any) -> int:
        """The indices: four bytes each, eight for a weight of 2^31 entries or more."""
        return self.Delta.param_count(site, config) * (4 if site.numel < 2**31 else 8)

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        return "R (out + in) a site"
