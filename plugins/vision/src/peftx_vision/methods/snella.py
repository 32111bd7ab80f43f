"""SNELLA: SNELL with a softmax term, and maps that compete for the entries all of them together may keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from peftx.adapters.delta import Delta
from peftx.adapters.schedule import Schedule
from peftx.adapters.site import Site
from peftx.adapters.store import ParamStore
from peftx.errors import AdapterError
from peftx_vision.config.methods import SNELLAConfig, SNELLConfig
from peftx_vision.methods.budget import Importance, allocate, official_budget, step_budget
from peftx_vision.methods.snell import SNELL, SNELLDelta

__all__ = ["SNELLA", "Competition", "SNELLADelta"]


class SNELLADelta(SNELLDelta):
    r"""SNELL's update with ``V' = V + alpha softmax_j(V / gamma) + beta`` in V's place and a sparsity of its own.

    The softmax runs over the outputs j of each input. alpha = 1, gamma = 1, beta = 0 at the start, one trained value
    each. How many entries the map keeps is `kept`, a buffer, so it is stored with the adapter; s = 1 - kept / (in out).

    The update is not zero at the start: its entries are near (1 / out)^2.

    "SNELLA", 2025, arXiv 2510.24037; the formulas are those of its official code.
    """

    kept: Tensor

    def __init__(self, site: Site, config: SNELLConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site, config, weight, bias)
        assert isinstance(config, SNELLAConfig)
        self.mode = "dense" if config.mixk else config.mode
        self.alpha, self.gamma, self.beta = (
            nn.Parameter(torch.full((1,), value, dtype=self.A.dtype)) for value in (1.0, 1.0, 0.0)
        )
        # a whole number: a model that is cast to half precision keeps it
        first = step_budget(0.0, config.initial_sparsity, config.initial_sparsity, site.numel)
        self.register_buffer("kept", torch.tensor(site.numel if config.mixk else first))
        self._rate: tuple[Any, float] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # what is remembered belongs to one buffer in memory
        return self.__dict__ | {"_rate": None}

    @classmethod
    def param_count(cls, site: Site, config: SNELLConfig) -> int:
        """R (out + in) + 3."""
        return super().param_count(site, config) + 3

    def rate(self) -> float | Tensor:
        # read again only when the buffer was written to: on a device every read waits for it
        if torch.compiler.is_compiling():
            return 1 - self.kept.double() / self.site.numel
        if self.kept.is_inference():
            return self._read()
        stamp = (self.kept.data_ptr(), self.kept._version)
        if self._rate is None or self._rate[0] != stamp:
            self._rate = stamp, self._read()
        return self._rate[1]

    def _read(self) -> float:
        return min(max(1 - int(self.kept) / self.site.numel, 0.0), 1.0)

    def _mix(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.alpha, self.gamma, self.beta


class Competition(Schedule):
    """Gives each map its share of a budget that shrinks to the target, by the importance of its thin factors.

    After every optimizer step the importance of A and B of every map takes in that step (`Importance`). The budget is
    given out anew about `allocations` times; it falls along a cubic curve, reaches the target when the last `hold` of
    the steps begins, and from then on no map's sparsity changes: `settled`. With ``allocate = "epoch"`` everything is
    as in the official code, whose time is epochs.
    """

    def __init__(self, config: SNELLAConfig) -> None:
        self.config = config
        self._done = False

    def start(self, deltas: Mapping[str, Delta], store: ParamStore, total_steps: int) -> None:
        super().start(deltas, store, total_steps)
        self.maps = {key: delta for key, delta in deltas.items() if isinstance(delta, SNELLADelta)}
        self.importance = {
            key: (Importance(delta.A), Importance(delta.B)) for key, delta in self.maps.items()
        }
        self._done = False

    @property
    def settled(self) -> bool:
        return self._done

    def after_step(self, step: int) -> None:
        if self._done:
            return
        decay = self.config.importance_decay
        for key, delta in self.maps.items():
            for importance, factor in zip(self.importance[key], (delta.A, delta.B), strict=True):
                importance.observe(factor, factor.grad, decay)
        budget, self._done = self._by_epoch(step) if self.config.allocate == "epoch" else self._by_step(step)
        if budget is not None:
            self._give_out(budget)

    def _by_step(self, step: int) -> tuple[int | None, bool]:
        """(budget or None, whether this was the last time) after step `step`."""
        config = self.config
        # however the shares round, one step competes before the last
        begin = max(min(round(config.warmup * self.total_steps), self.total_steps - 2), 0)
        end = max(min(round((1 - config.hold) * self.total_steps), self.total_steps - 1), begin + 1)
        if step >= end:
            return self._budget(1.0), True
        if step <= begin:
            return None, False
        every = (end - begin) / config.allocations
        if int((step - begin) / every) == int((step - begin - 1) / every):
            return None, False
        return self._budget((step - begin) / (end - begin)), False

    def _by_epoch(self, step: int) -> tuple[int | None, bool]:
        """The same at the start of an epoch, which is the end of the last step of the one before."""
        config, epochs = self.config, self.config.epochs
        epoch = step * epochs // self.total_steps
        last = step >= self.total_steps - 1 or (epochs - 1) * self.total_steps <= step * epochs
        if epoch == (step - 1) * epochs // self.total_steps or epoch >= epochs:
            return None, last
        budget = official_budget(
            epoch,
            epochs,
            config.initial_sparsity,
            config.sparsity,
            self._entries(),
            config.initial_warmup,
            config.final_warmup,
        )
        return budget, last

    def _entries(self) -> int:
        return sum(delta.site.numel for delta in self.maps.values())

    def _budget(self, progress: float) -> int:
        return step_budget(progress, self.config.initial_sparsity, self.config.sparsity, self._entries())

    def _give_out(self, budget: int) -> None:
        # one read of the device for all maps
        scores = torch.stack([a.score() + b.score() for a, b in self.importance.values()])
        finite = scores.double().nan_to_num(0.0, 0.0, 0.0).tolist()
        counts = allocate(budget, finite, [delta.site.numel for delta in self.maps.values()])
        for delta, count in zip(self.maps.values(), counts, strict=True):
            delta.kept.fill_(count)

    def state_dict(self) -> dict[str, Any]:
        return {
            "settled": int(self._done),
            "importance": {
                key: [[i.mean.clone(), i.spread.clone()] for i in both]
                for key, both in self.importance.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        found = {key: [tuple(mean.shape) for mean, _ in both] for key, both in state["importance"].items()}
        want = {key: [tuple(i.mean.shape) for i in both] for key, both in self.importance.items()}
        if found != want:
            key = next(key for key in (*want, *found) if found.get(key) != want.get(key))
            raise AdapterError(
                f"this state of the competition has {found.get(key, 'nothing')} at {key}, where the adapter has "
                f"{want.get(key, 'nothing')}; load the state that was saved with this adapter"
            )
        self._done = bool(state["settled"])
        for key, both in state["importance"].items():
            for importance, (mean, spread) in zip(self.importance[key], both, strict=True):
                importance.mean.copy_(mean)
                importance.spread.copy_(spread)


class SNELLA(SNELL):
    """`vision.snella`."""

    Config: ClassVar[type[SNELLConfig]] = SNELLAConfig
    Delta: ClassVar[type[SNELLDelta]] = SNELLADelta

    def buffer_bytes(self, site: Site, config: Any) -> int:
        """`kept`, one whole number a map."""
        return 8

    def schedule(self, config: Any) -> Schedule | None:
        return None if config.mixk else Competition(cast("SNELLAConfig", config))

    def formula(self, sites: Any, config: Any) -> str:
        return "R (out + in) + 3 a map"
