"""Bi-AdaptFormer and Bi-LoRA: adapters of one, two or four bits an entry, quantised while they are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta
from peftx.adapters.handle import Adapted
from peftx.adapters.method import AdapterMethod, refuse_dropout
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import in_model_order
from peftx.errors import ArtifactError
from peftx_kernels import bottleneck
from peftx_vision.config.bi_adapter import BiAdaptFormerConfig, BiLoRAConfig
from peftx_vision.methods.bottleneck_insert import BottleneckInsert
from peftx_vision.methods.halves import beside_the_mlp
from peftx_vision.methods.low_bits import codes, packed, packed_bytes, quantised, unpacked

__all__ = ["BiAdaptFormer", "BiAdaptFormerInsert", "BiLoRA", "BiLoRADelta", "pack", "unpack"]

_STD = 1e-3


class _LowBits(Delta):
    """The two maps of an adapter, D (k, in) and U (out, k), held in full and used as `quantised` makes them.

    `exact` is set where the values came out of a packed file: they are on their codes, and are used as they are.
    """

    exact: Tensor

    def __init__(self, site: Site, config: BiAdaptFormerConfig, out: int, width: int) -> None:
        super().__init__(site)
        self.bits, self.levels = config.bits, codes(config.bits) if config.bits < 32 else ()
        self.scale, self.dropout = config.scale, config.dropout
        dtype = self.parameter_dtype(site.dtype)
        self.down = nn.Parameter(torch.empty(config.width, width, dtype=dtype))
        self.up = nn.Parameter(torch.zeros(out, config.width, dtype=dtype))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        if config.bits < 32:  # a tensor of zeros has no deviation to be quantised by
            nn.init.trunc_normal_(self.up, std=_STD, a=-2 * _STD, b=2 * _STD)
        self.register_buffer("exact", torch.tensor(False))

    def maps(self) -> tuple[Tensor, Tensor]:
        """D and U, as they act."""
        if self.bits == 32:
            return self.down, self.up
        down, up = (torch.where(self.exact, w, quantised(w, self.levels)) for w in (self.down, self.up))
        return down, up


class BiAdaptFormerInsert(_LowBits, BottleneckInsert):
    r"""``out = H + MLP(LN2(H)) + s U drop(relu(D H))``, H (B, T, d) the stream in front of LN2; no biases.

    Jie et al., "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy", ICCV
    2023, arXiv 2307.16867.
    """

    read = "tap"

    def __init__(self, site: Site, config: BiAdaptFormerConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, site.shape[0], site.shape[0])

    @classmethod
    def param_count(cls, site: Site, config: BiAdaptFormerConfig) -> int:
        """2 k d."""
        return 2 * config.width * site.shape[0]

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


class BiLoRADelta(_LowBits):
    """``y = W x + s U drop(D x)``, so W' = W + s U D; of the same paper."""

    def __init__(self, site: Site, config: BiLoRAConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, *site.matrix)

    @classmethod
    def param_count(cls, site: Site, config: BiLoRAConfig) -> int:
        """k (in + out)."""
        return config.width * sum(site.matrix)

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

    def buffer_bytes(self, site: Site, config: Any) -> int:
        return 1  # whether the values are final


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


def _parts(adapted: Adapted) -> tuple[list[_LowBits], list[Tensor]]:
    """The deltas in the model's own order, and what the adapter owns whole."""
    attachment = adapted.attachment()
    if not isinstance(attachment.method, _Method) or attachment.config.bits == 32:
        raise ArtifactError(
            "only an adapter of vision.bi_adaptformer or vision.bi_lora with 1, 2 or 4 bits has a packed form"
        )
    tensors = adapted.tensors()
    holders = {delta.site.key: delta for delta in adapted.model.modules() if isinstance(delta, _LowBits)}
    sites = in_model_order(adapted.model, attachment.plan)
    owned = [
        tensors[site.key, "value"] for site in sorted(attachment.owned, key=lambda site: -len(site.shape))
    ]
    return [holders[site.key] for site in sites], owned


def pack(adapted: Adapted) -> bytes:
    """The model's only adapter in b bits an entry: of every place D and U with mean and deviation, then the head.

    The head, and whatever else the adapter owns whole, is float32. There is no header: `unpack` needs an adapter that
    was attached with the same options.

    Raises:
        ArtifactError: the adapter is of another method, or of 32 bits; or came out of a packed file itself.
    """
    deltas, owned = _parts(adapted)
    if any(delta.exact for delta in deltas):
        raise ArtifactError(
            "this adapter came out of a packed file; keep that file, its mean and deviation are gone"
        )
    maps = [packed(w, delta.bits) for delta in deltas for w in (delta.down, delta.up)]
    rest = [value.detach().float().cpu().numpy().astype("<f4").tobytes() for value in owned]
    return b"".join((*maps, *rest))


def unpack(adapted: Adapted, data: bytes) -> Adapted:
    """Give an attached adapter the values of a packed file. They are final: they are not quantised again.

    Raises:
        ArtifactError: the file is of another size than this adapter's, or it is no adapter with a packed form.
    """
    deltas, owned = _parts(adapted)
    sizes = [packed_bytes(w.numel(), delta.bits) for delta in deltas for w in (delta.down, delta.up)]
    rest = [4 * value.numel() for value in owned]
    if len(data) != sum(sizes) + sum(rest):
        raise ArtifactError(
            f"the packed file has {len(data):,} bytes, and this adapter takes {sum(sizes) + sum(rest):,}; attach it to "
            "the same model with the options it was trained with"
        )
    pieces = (
        piece.numpy().tobytes()
        for piece in torch.frombuffer(bytearray(data), dtype=torch.uint8).split([*sizes, *rest])
    )
    with torch.no_grad():
        for delta in deltas:
            for w in (delta.down, delta.up):
                w.copy_(unpacked(next(pieces), tuple(w.shape), delta.bits))
            delta.exact.fill_(True)
        for value in owned:
            value.copy_(torch.frombuffer(bytearray(next(pieces)), dtype=torch.float32).view(value.shape))
    return adapted
