"""Sound toys, one for each piece a method can be made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from kit_toys_config import ToyConfig
from torch import Tensor, nn

from peftx.adapters import AdapterMethod, Delta, Insert, Schedule

WEIGHTS = ("linear", "linear_t", "conv1d", "conv2d", "embedding", "packed_attention")


class GainDelta(Delta):
    """W' = diag(1 + g) W, b' = (1 + g) b."""

    changes_bias = True
    start = 0.0

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.gain = nn.Parameter(torch.full((weight.shape[0],), self.start, dtype=self.dtype_of(weight)))

    def dtype_of(self, weight: Tensor) -> torch.dtype:
        return self.parameter_dtype(weight.dtype)

    def factor(self, weight: Tensor) -> Tensor:
        return (1 + self.gain).to(weight.dtype)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        factor = self.factor(weight)
        return weight * factor.view(-1, *[1] * (weight.dim() - 1)), None if bias is None else bias * factor

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return site.shape[0]


class Gain(AdapterMethod):
    Config = ToyConfig
    Delta = GainDelta
    kinds = WEIGHTS
    wakes_within = 1


class PackedDelta(GainDelta):
    """Trained in full, acts and is stored in float16."""

    packing = "half, 1"

    def factor(self, weight: Tensor) -> Tensor:
        gain = self.gain.detach().half().to(self.gain.dtype) + (self.gain - self.gain.detach())
        return (1 + gain).to(weight.dtype)

    def pack(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"half": state["gain"].half()}

    def unpack(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"gain": stored["half"].to(self.gain.dtype)}


class Packed(Gain):
    Delta = PackedDelta

    def stored_bytes(self, site: Any, config: Any) -> int:
        return 2 * site.shape[0]


class BankedDelta(GainDelta):
    """One gain for the whole model, in the bank, and one of the site."""

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None, bank: nn.Module) -> None:
        super().__init__(site, config, weight, bias)
        self.__dict__["bank"] = bank

    def factor(self, weight: Tensor) -> Tensor:
        return (1 + self.gain + self.bank.common).to(weight.dtype)


class Common(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.common = nn.Parameter(torch.zeros(1))


class Banked(Gain):
    Delta = BankedDelta

    def bank(self, plan: Any, config: Any) -> nn.Module:
        return Common()

    def bank_count(self, plan: Any, config: Any) -> int:
        return 1


class RoutedDelta(GainDelta):
    """Each sample has its own mixture of two gains, said by the context `user`."""

    routed = True

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        self.gain = nn.Parameter(torch.zeros(2, weight.shape[0], dtype=self.parameter_dtype(weight.dtype)))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return Delta.effective(self, weight, bias)

    def forward(self, x: Tensor, base: Any) -> Tensor:
        user = self.context("user").to(x.device)
        factor = 1 + user.to(self.gain.dtype) @ self.gain  # (B, out)
        y = base(x)
        return y * factor.view(len(factor), *[1] * (y.dim() - 2), -1).to(y.dtype)

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 2 * site.shape[0]


class Routed(AdapterMethod):
    Config = ToyConfig
    Delta = RoutedDelta
    kinds = ("linear",)

    def context_example(self, config: Any, samples: int) -> dict[str, Tensor]:
        return {"user": torch.rand(samples, 2) + 0.5}


class BottleneckInsert(Insert):
    """y + B tanh(A y) after a module."""

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        width = site.shape[0]
        self.A = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.B = nn.Parameter(torch.zeros(width, 2))

    def insert(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.A.to(x.dtype).t()) @ self.B.to(x.dtype).t()

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 4 * site.shape[0]


class Bottleneck(AdapterMethod):
    Config = ToyConfig
    Delta = BottleneckInsert
    kinds = ("activation",)


class Fading(Schedule):
    """Shrinks every gain a little less each step; what it has done is its state."""

    def __init__(self) -> None:
        self.strength = 1.0

    def after_step(self, step: int) -> None:
        self.strength *= 0.9
        for delta in self.deltas.values():
            if isinstance(delta, GainDelta):
                self.store.update(delta.gain, lambda value, lr: value * (1 - 0.1 * self.strength))

    def state_dict(self) -> dict[str, Any]:
        return {"strength": self.strength}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.strength = float(state["strength"])


class Scheduled(Gain):
    def schedule(self, config: Any) -> Schedule:
        return Fading()
