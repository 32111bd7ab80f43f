"""Toys with one fault each, named after the law that must find it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import kit_toys_config as configs
import torch
from kit_toys_heavy_config import HeavyConfig
from kit_toys_sound import Fading, Gain, GainDelta, Packed, PackedDelta, Scheduled
from torch import Tensor, nn

from peftx.adapters import Schedule
from peftx.errors import ConfigError


def method(delta: type[GainDelta], **attributes: Any) -> type[Gain]:
    return type(delta.__name__.removesuffix("Delta"), (Gain,), {"Delta": delta, **attributes})


class StartsAsDelta(GainDelta):
    """Declared identity, starts a little off."""

    start = 0.01


class GradientsDelta(GainDelta):
    """Holds a parameter that nothing reads."""

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        self.spare = nn.Parameter(torch.zeros(3))

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return site.shape[0] + 3


class AsleepDelta(GainDelta):
    """The gain and a twin that only ever meets a factor of zero."""

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        self.twin = nn.Parameter(torch.zeros(weight.shape[0]))
        self.other = nn.Parameter(torch.zeros(weight.shape[0]))

    def factor(self, weight: Tensor) -> Tensor:
        return (1 + self.gain + self.twin * self.other).to(weight.dtype)

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 3 * site.shape[0]


class EffectDelta(GainDelta):
    """A shortcut for scoring that forgets the adapter."""

    def factor(self, weight: Tensor) -> Tensor:
        return super().factor(weight) if torch.is_grad_enabled() else torch.ones_like(weight[:, 0].flatten())


class EverySiteDelta(GainDelta):
    """At one of the sites the gain has a gradient and no effect."""

    def factor(self, weight: Tensor) -> Tensor:
        if self.site.key.endswith("2"):
            return (1 + self.gain - self.gain.detach()).to(weight.dtype)
        return super().factor(weight)


class ForwardDelta(GainDelta):
    """A product of its own that leaves the bias out."""

    def forward(self, x: Tensor, base: Any) -> Tensor:
        weight, bias = self.effective(base.weight, base.bias)
        return base.run(x, weight, bias if bias is None else base.bias)


class MergeDelta(GainDelta):
    """Changes the bias and does not say so, so whoever reads the bias gets the old one."""

    changes_bias = False


class BaseUntouchedDelta(GainDelta):
    """Writes to the frozen weight while it trains."""

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        found = super().effective(weight, bias)
        if self.training:
            weight.data.mul_(1 + 1e-6)
        return found


class DeterministicDelta(GainDelta):
    """Draws where no seed reaches."""

    direction: Tensor

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        own = torch.Generator().manual_seed(int.from_bytes(os.urandom(6), "little"))
        self.register_buffer("direction", 0.5 + torch.rand(weight.shape[0], generator=own))

    def factor(self, weight: Tensor) -> Tensor:
        return (1 + self.gain * self.direction).to(weight.dtype)


class DetachGain(Gain):
    """Leaves a mark on the model that stays there."""

    def plan(self, model: nn.Module, config: Any) -> Any:
        model.register_buffer("seen_by_toy", torch.ones(1), persistent=False)
        return super().plan(model, config)


class SaveLoadDelta(GainDelta):
    """Half of what it needs is in no state dict."""

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        self.direction = 0.5 + torch.rand(weight.shape[0])

    def factor(self, weight: Tensor) -> Tensor:
        return (1 + self.gain * self.direction).to(weight.dtype)


class PackingDelta(PackedDelta):
    """Writes the time with it."""

    clock: ClassVar[Any] = itertools.count()

    def pack(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().pack(state) | {"time": torch.tensor([next(self.clock)], dtype=torch.int32)}


class Packing(Packed):
    Delta = PackingDelta

    def stored_bytes(self, site: Any, config: Any) -> int:
        return super().stored_bytes(site, config) + 4


class DeepcopyDelta(GainDelta):
    """Its parameters follow it into every copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class SideBySideDelta(GainDelta):
    """Reads the module's own weight, whatever another adapter made of it."""

    def forward(self, x: Tensor, base: Any) -> Tensor:
        innermost = base
        while hasattr(innermost, "base"):
            innermost = innermost.base
        return base.run(x, *self.effective(innermost.weight, innermost.bias))


class MixingDelta(GainDelta):
    """Remembers the size of the first batch."""

    size = 0

    def forward(self, x: Tensor, base: Any) -> Tensor:
        self.size = self.size or len(x)
        if len(x) != self.size:
            raise ValueError(f"made for batches of {self.size}")
        return super().forward(x, base)


class AutocastDelta(GainDelta):
    """Gives up in low precision."""

    def factor(self, weight: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            return 1 + self.gain.detach()
        return super().factor(weight)


class Bf16BaseDelta(GainDelta):
    """Trains in the precision of the base."""

    def dtype_of(self, weight: Tensor) -> torch.dtype:
        return weight.dtype


class CompiledDelta(GainDelta):
    """Asks a number what to do."""

    def factor(self, weight: Tensor) -> Tensor:
        if float(self.gain.abs().max()) > 1e6:
            return torch.ones_like(self.gain)
        return super().factor(weight)


class CheckpointingDelta(GainDelta):
    """Computes another thing the second time."""

    def factor(self, weight: Tensor) -> Tensor:
        again = torch._C._current_graph_task_id() != -1
        return super().factor(weight) * (1.1 if again else 1.0)


class DdpDelta(GainDelta):
    """Every process does its own thing."""

    def factor(self, weight: Tensor) -> Tensor:
        several = torch.distributed.is_initialized()
        return super().factor(weight) * (1 + torch.distributed.get_rank() if several else 1)


class CountsDelta(GainDelta):
    """A closed formula that is another one's."""

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return sum(site.matrix)


class ExplainGain(Gain):
    """A formula that is no line of text."""

    def formula(self, sites: Any, config: Any) -> str:
        return "first\nsecond"


class KindsGain(Gain):
    """Claims more than it takes."""

    def check(self, plan: Any, config: Any) -> None:
        if any(site.kind == "conv2d" for site in plan):
            raise ConfigError("kit.kinds: convolutions in two dimensions are refused")


class ForgetfulFading(Fading):
    """Its state is left behind."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        return


class ResumeGain(Scheduled):
    def schedule(self, config: Any) -> Schedule:
        return ForgetfulFading()


class UnboundGain(Scheduled):
    """A schedule that the board does not hear of."""

    def schedule(self, config: Any) -> Any:
        import inspect

        judged = any("peftx/testing" in frame.filename for frame in inspect.stack()[1:2])
        return Fading() if judged else None


StartsAs = method(StartsAsDelta)
NotShifted = method(GainDelta, starts_as="shifted")
Gradients = method(GradientsDelta)
Asleep = method(AsleepDelta)
Effect = method(EffectDelta)
EverySite = method(EverySiteDelta)
Forward = method(ForwardDelta)
Merge = method(MergeDelta)
BaseUntouched = method(BaseUntouchedDelta)
Deterministic = method(DeterministicDelta, buffer_bytes=lambda self, site, config: 4 * site.shape[0])
SaveLoad = method(SaveLoadDelta)
Deepcopy = method(DeepcopyDelta)
SideBySide = method(SideBySideDelta)
Mixing = method(MixingDelta)
Autocast = method(AutocastDelta)
Bf16Base = method(Bf16BaseDelta)
Compiled = method(CompiledDelta)
Checkpointing = method(CheckpointingDelta)
Ddp = method(DdpDelta)
Counts = method(CountsDelta)
SilentOption = method(GainDelta, Config=configs.SilentConfig)
LossyOption = method(GainDelta, Config=configs.LossyConfig)
HeavyOption = method(GainDelta, Config=HeavyConfig)
LooseOption = method(GainDelta, Config=configs.LooseConfig)
WordyOption = method(GainDelta, Config=configs.WordyConfig)
