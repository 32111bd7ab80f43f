"""MoSA: a bottleneck whose entries are split among sparse experts, trained one at a time and merged for inference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.adapters.insert import Insert, main_output
from peftx.adapters.method import AdapterMethod, is_chosen
from peftx.adapters.site import Site, SitePlan
from peftx_kernels import bottleneck
from peftx_vision.config.mosa import MoSAConfig
from peftx_vision.methods.bottleneck_insert import BottleneckInsert
from peftx_vision.methods.halves import beside_the_mlp

__all__ = ["MoSA", "MoSAInsert", "divergence", "owners"]

_EPS = 1e-5


class MoSAInsert(BottleneckInsert):
    r"""``out = H + MLP(LN2(H)) + s (U_e drop(gelu(D LN_a(H) + b_D)) + b_e)`` in training, with a random expert e.

    U (d, k) is one dense tensor whose entries E experts share out: U_e has those of expert e and zeros elsewhere. In
    evaluation U / E and the mean of the b_e take their place, which is the expectation over e, given the hidden values.
    With `share` up or none D is split as well: D_e has the trained values of expert e and the start elsewhere, and the
    mean over e is start + (D - start) / E. H (B, T, d) is the stream behind the attention, LN_a a trained LayerNorm.

    Shapes: D (k, d), U (d, k), b_D (k,), b (E d,); of a split D, b_D (E k,). Which expert owns an entry follows from
    the seed and the site's key; no file holds it. Every forward draws one expert for all of its tokens.

    Zhang et al., "Split & Merge: Unlocking the Potential of Visual Adapters via Sparse Training", 2023,
    arXiv 2312.02923.
    """

    start: Tensor
    down_owner: Tensor
    up_owner: Tensor

    def __init__(self, site: Site, config: MoSAConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        beside = config.style == "adaptformer"
        self.read = "tap" if beside else "output"
        self.experts, self.split_down, self.split_up = config.experts, *_split(config)
        self.scale, self.dropout = (config.scale, config.dropout) if beside else (1.0, 0.0)
        self.activation = "gelu" if beside else "relu"
        width, hidden, dtype = site.shape[0], config.width, self.parameter_dtype(site.dtype)

        def full(value: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value, dtype=dtype))

        self.norm_weight, self.norm_bias = full(1.0, width), full(0.0, width)
        self.down, self.up = full(0.0, hidden, width), full(0.0, width, hidden)
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        # those of all experts in one vector: a bias takes no weight decay, and a matrix would
        self.down_bias = full(0.0, (config.experts if self.split_down else 1) * hidden)
        self.up_bias = full(0.0, (config.experts if self.split_up else 1) * width)
        for name, tensor, split in (
            ("down", self.down, self.split_down),
            ("up", self.up, self.split_up),
        ):
            if split:
                owner = owners(tensor.shape, config.experts, f"{config.seed}:{site.key}:{name}")
                self.register_buffer(f"{name}_owner", owner, persistent=False)
        if self.split_down:
            self.register_buffer("start", self.down.detach().clone())

    @classmethod
    def param_count(cls, site: Site, config: MoSAConfig) -> int:
        """2 d + 2 k d + k + d, with a bias for each expert of a map that is split."""
        width, hidden = site.shape[0], config.width
        down, up = (config.experts if split else 1 for split in _split(config))
        return 2 * width + 2 * hidden * width + down * hidden + up * width

    def maps(self, down: Tensor | None, up: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        """D, b_D, U, b_U and the factor: of the experts `down` and `up`, int64 (1,), or merged where they are None."""
        d, u, scale = cast(Tensor, self.down), cast(Tensor, self.up), self.scale
        d_bias, u_bias = self.down_bias.view(-1, len(d)), self.up_bias.view(-1, len(u))
        if not self.split_down:
            d_bias = d_bias[0]
        elif down is None:
            d, d_bias = self.start + (d - self.start) / self.experts, d_bias.mean(0)
        else:
            d, d_bias = torch.where(self.down_owner == down, d, self.start), d_bias.index_select(0, down)[0]
        if not self.split_up:
            u_bias = u_bias[0]
        elif up is None:
            u_bias, scale = u_bias.sum(0), scale / self.experts
        else:
            u, u_bias = u * (self.up_owner == up), u_bias.index_select(0, up)[0]
        return d, d_bias, u, u_bias, scale

    def run(self, x: Tensor, residual: Tensor | None) -> Tensor:
        chosen: list[Tensor | None] = [None, None]
        if self.training and self.experts > 1:
            # of torch's generator, which activation checkpointing puts back; on the device, so nobody waits for it
            chosen = [torch.randint(self.experts, (1,), device=x.device) for _ in range(2)]
        down, down_bias, up, up_bias, scale = self.maps(*chosen)
        return bottleneck(
            x,
            down,
            up,
            down_bias=down_bias,
            up_bias=up_bias,
            residual=residual,
            scale=scale,
            activation=self.activation,
            norm_weight=self.norm_weight,
            norm_bias=self.norm_bias,
            norm_eps=_EPS,
            dropout=self.dropout,
            training=self.training,
        )


class MoSA(AdapterMethod):
    """`vision.mosa`."""

    Config: ClassVar[type[MoSAConfig]] = MoSAConfig
    Delta: ClassVar[type[MoSAInsert]] = MoSAInsert
    kinds = ("activation",)
    fallbacks = ()
    #: the first map has to wait until an expert that has moved is drawn again
    wakes_within = 5

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        if config.style == "adaptformer":
            return beside_the_mlp(super().plan(model, config), model, other="style to pfeiffer")
        if not is_chosen(config, "targets"):
            config = config.model_copy(update={"targets": ["mlp"]})
        return super().plan(model, config)

    def buffer_bytes(self, site: Site, config: Any) -> int:
        # where the first map started: each expert has it outside of its own entries
        size = Insert.parameter_dtype(site.dtype).itemsize
        return config.width * site.shape[0] * size if _split(config)[0] else 0

    def loss(self, config: Any, run: Callable[[], tuple[Tensor, Any]]) -> Tensor:
        """``L_1 + w_2 L_2 + w divergence(p_1, p_2)`` of two passes with other experts and another dropout."""
        loss, first = run()
        if config.second_loss or config.consistency:
            again, second = run()
            if config.second_loss:
                loss = loss + config.second_loss * again
            if config.consistency:
                loss = loss + config.consistency * divergence(main_output(first), main_output(second))
        return loss

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        down, up = ("E " if split else "" for split in _split(config))
        return f"2 d + 2 k d + {down}k + {up}d a place"


def _split(config: MoSAConfig) -> tuple[bool, bool]:
    return config.share != "down", config.share != "up"


def owners(shape: Sequence[int], experts: int, seed: str) -> Tensor:
    """The expert that owns each entry of a map, uint8: expert i those of rank floor(i n / E) to floor((i + 1) n / E).

    Ranks are those of n random scores, drawn from the seed on the CPU, so they are the same on every device.
    """
    count = math.prod(shape)
    digest = hashlib.sha256(seed.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    order = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu").argsort(stable=True)
    owner = torch.empty(count, dtype=torch.uint8, device="cpu")
    for expert in range(experts):
        owner[order[expert * count // experts : (expert + 1) * count // experts]] = expert
    return owner.view(*shape)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """``(KL(sg q_2 || q_1) + KL(sg q_1 || q_2)) / 2``, q the softmax of scores (..., C), mean over rows, in float32."""
    p, q = (scores.float().flatten(0, -2).log_softmax(-1) for scores in (first, second))

    def to(mine: Tensor, other: Tensor) -> Tensor:
        return F.kl_div(mine, other.detach(), reduction="batchmean", log_target=True)

    return (to(p, q) + to(q, p)) / 2
