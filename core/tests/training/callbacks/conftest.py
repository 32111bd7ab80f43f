"""A method whose schedule prunes units through the store, for trainers that are not ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import peftx
from peftx.adapters import Adapted, AdapterMethod, Delta, ParamStore, Schedule, Site
from peftx.config.adapter import AdapterConfig


class GainConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:*.query", "glob:*.value"])


class Gain(Delta):
    """W' = diag(1 + g) W."""

    def __init__(self, site: Site, config: GainConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.g = nn.Parameter(torch.zeros(site.shape[0], dtype=site.dtype))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return (1 + self.g)[:, None] * weight, bias

    @staticmethod
    def param_count(site: Site, config: GainConfig) -> int:
        return site.shape[0]


class Prune(Schedule):
    """Keeps fewer and fewer units, those of the largest smoothed saliency |g dL/dg|; the rest is held at zero.

    Its start moves the parameters, its state is tensors, numbers and text, and its decisions depend on gradients, so a
    step too many, too few, or at the wrong time changes the result.
    """

    def start(self, deltas: Mapping[str, Delta], store: ParamStore, total_steps: int) -> None:
        super().start(deltas, store, total_steps)
        self.events: list[tuple[str, int]] = []
        self.lowest, self.phase = math.inf, "warm"
        self.saliency = {key: torch.zeros_like(d.g) for key, d in self._gains().items()}
        self.keep = {key: torch.ones_like(d.g, dtype=torch.bool) for key, d in self._gains().items()}
        for delta in self._gains().values():
            store.update(delta.g, lambda value, lr: torch.linspace(-0.2, 0.2, len(value)))

    def _gains(self) -> dict[str, Any]:
        return {key: delta for key, delta in self.deltas.items() if isinstance(delta, Gain)}

    def before_step(self, step: int) -> None:
        self.events.append(("before", step))
        for key, delta in self._gains().items():
            assert delta.g.grad is not None, "gradients are complete"
            found = (delta.g.detach() * delta.g.grad).abs()
            self.saliency[key] = 0.5 * self.saliency[key] + 0.5 * found
            self.lowest = min(self.lowest, found.min().item())
            left = len(found) - round(len(found) / 2 * min(1.0, step / self.total_steps))
            order = self.saliency[key].argsort(descending=True, stable=True)
            self.keep[key] = torch.zeros_like(self.keep[key]).index_fill(0, order[:left], True)
            self.store.mask_gradient(delta.g, self.keep[key])

    def after_step(self, step: int) -> None:
        self.events.append(("after", step))
        for key, delta in self._gains().items():
            self.store.mask(delta.g, self.keep[key])
        self.phase = "cold" if step > self.total_steps // 2 else "warm"

    @property
    def settled(self) -> bool:
        return bool(self.events) and self.events[-1][1] >= self.total_steps

    def state_dict(self) -> dict[str, Any]:
        return {"saliency": self.saliency, "keep": self.keep, "lowest": self.lowest, "phase": self.phase}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.saliency, self.keep = dict(state["saliency"]), dict(state["keep"])
        self.lowest, self.phase = state["lowest"], state["phase"]


class Pruned(AdapterMethod):
    Config = GainConfig
    Delta = Gain
    kinds = ("linear",)

    def schedule(self, config: Any) -> Schedule:
        return Prune()


def _running(adapted: Adapted, name: str = "default") -> Any:
    return adapted._board.binding.running[name].schedule


def _values(adapted: Adapted) -> dict[str, Tensor]:
    return {
        f"{name} {site} {slot}": value.detach().clone()
        for name in adapted.names
        for (site, slot), value in adapted.tensors(name).items()
    }


def _base(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if "peftx" not in key.split(".")}


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def pruning() -> SimpleNamespace:
    """`attach(model, **options)` the pruning method, `running(adapted)` its schedule, and ways to compare."""

    def attach(model: nn.Module, **options: Any) -> Adapted:
        return peftx.attach(model, Pruned, **options)

    return SimpleNamespace(
        method=Pruned, attach=attach, running=_running, values=_values, base=_base, equal=_equal
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def steps_of() -> Callable[[int], list[tuple[str, int]]]:
    """What a schedule sees of a number of optimizer steps."""
    return lambda n: [(what, step) for step in range(1, n + 1) for what in ("before", "after")]
