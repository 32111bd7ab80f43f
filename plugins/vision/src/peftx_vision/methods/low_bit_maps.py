"""Deltas whose tensors act in a few values each, are trained in full, and are stored as their codes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from peftx.adapters.delta import Delta, Owned
from peftx.adapters.site import Site
from peftx_vision.methods.low_bits import codes, packed, quantised, unloaded, unpacked

__all__ = ["LowBitHead", "LowBits", "NoBias", "is_head_bias", "is_head_matrix"]

_LAYERS = ("linear", "linear_t", "conv1d", "conv2d")


def is_head_matrix(site: Site) -> bool:
    """Whether an owned parameter is the weight of a layer in a head."""
    return site.role == "head" and site.kind in _LAYERS and site.weight == "weight"


def is_head_bias(site: Site) -> bool:
    """Whether an owned parameter is the bias of a layer in a head."""
    return site.role == "head" and site.kind in _LAYERS and site.weight == "bias"


class LowBits(Delta):
    """Some parameters of a delta as `quantised` makes them: 2^b values each.

    A constructor calls `keep` for each; `acting` is what it computes with. Beside each stands its origin, which says
    whether it is still what a packed folder gave (see `unpacked`).
    """

    bits: int
    kept: tuple[str, ...] = ()

    def keep(self, bits: int, *slots: str) -> None:
        """Let these parameters act in `bits` bits an entry; 32 leaves them as they are."""
        self.bits, self.levels = bits, codes(bits) if bits < 32 else ()
        if bits < 32:
            self.packing, self.kept = "low bits, 1", slots
            for slot in slots:
                self.register_buffer(f"{slot}_origin", unloaded(self.get_parameter(slot)))

    def acting(self, slot: str) -> Tensor:
        """A parameter as it acts."""
        weight = self.get_parameter(slot)
        return quantised(weight, self.levels, self.get_buffer(f"{slot}_origin")) if self.levels else weight

    def pack(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stored: dict[str, Tensor] = {}
        for slot in self.kept:
            octets, statistics = packed(state[slot], self.bits, state[f"{slot}_origin"])
            stored |= {f"{slot}.codes": octets, f"{slot}.statistics": statistics}
        return stored

    def unpack(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for slot in self.kept:
            shape = tuple(self.get_parameter(slot).shape)
            weight, origin = unpacked(stored[f"{slot}.codes"], stored[f"{slot}.statistics"], shape, self.bits)
            state |= {slot: weight, f"{slot}_origin": origin}
        return state


class LowBitHead(LowBits, Owned):
    """The weight of a head in a few bits an entry, the adapter's own: Bi-Head of the paper with one bit.

    It starts as the base's. A constant one (a head that was set to zero) has no deviation to be quantised by, and is
    drawn anew, uniform within 1 / sqrt(in).
    """

    def __init__(self, site: Site, value: Tensor | nn.Parameter, bits: int) -> None:
        super().__init__(site, value)
        if not self.value.is_meta and bool((self.value == self.value.flatten()[0]).all()):
            nn.init.kaiming_uniform_(self.value, a=math.sqrt(5))
        self.keep(bits, "value")

    def current(self) -> Tensor:
        return self.acting("value")


class NoBias(Owned):
    """In the place of a bias, nothing: zeros, which are not trained and in no file."""

    def __init__(self, site: Site, value: Tensor) -> None:
        Delta.__init__(self, site)
        zeros = torch.zeros_like(value, dtype=self.parameter_dtype(value.dtype))
        self.register_buffer("value", zeros, persistent=False)
