"""Schedules run with optimizer steps and with nothing else, and only once an optimizer drives them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import peftx
from peftx.adapters import Adapted, AdapterMethod, Delta, ParamStore, Schedule, Site
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError


class GainConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:*"])
    also_train: list[str] = Field(default=[])


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


class Log(Schedule):
    """Writes down what it sees; settles at half time."""

    def start(self, deltas: Mapping[str, Delta], store: ParamStore, total_steps: int) -> None:
        super().start(deltas, store, total_steps)
        self.events: list[tuple[str, int]] = []
        self.seen = 0

    def before_step(self, step: int) -> None:
        self.values = {key: delta.g.detach().clone() for key, delta in self.deltas.items()}
        assert all(delta.g.grad is not None for delta in self.deltas.values())
        self.events.append(("before", step))

    def after_step(self, step: int) -> None:
        for key, delta in self.deltas.items():
            assert delta.g.grad is not None
            assert not torch.equal(delta.g, self.values[key]), "parameters have moved by now"
        self.events.append(("after", step))
        self.seen = step

    @property
    def settled(self) -> bool:
        return 2 * self.seen >= self.total_steps

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


class Timed(AdapterMethod):
    Config = GainConfig
    Delta = Gain
    kinds = ("linear",)

    def schedule(self, config: Any) -> Schedule:
        return Log()


def _adapted(name: str = "default") -> Adapted:
    return peftx.attach(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), Timed, name=name)


def _step(adapted: Adapted, optimizer: torch.optim.Optimizer, batches: int = 1) -> None:
    for _ in range(batches):
        adapted.model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _log(adapted: Adapted, name: str = "default") -> Log:
    return adapted._board.binding.running[name].schedule  # type: ignore[return-value]


def test_steps_are_optimizer_steps() -> None:
    adapted = _adapted()
    adapted.model.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    assert adapted.bind(optimizer, total_steps=4) is adapted
    _step(adapted, optimizer, batches=3)  # accumulation: three forwards, one step
    adapted.model.eval()
    adapted.model(torch.randn(2, 4))  # validation is no step
    adapted.model.train()
    _step(adapted, optimizer)
    log = _log(adapted)
    assert log.events == [("before", 1), ("after", 1), ("before", 2), ("after", 2)]
    assert set(log.deltas) == {"0", "2"} and log.total_steps == 4


def test_a_training_forward_needs_an_optimizer() -> None:
    adapted = _adapted()
    x = torch.randn(2, 4)
    adapted.model.train()
    with pytest.raises(AdapterError, match=r"bind\(optimizer, total_steps=N\)"):
        adapted.model(x)
    with torch.no_grad():
        adapted.model(x)
    adapted.model.eval()
    adapted.model(x).sum().backward()  # probing a gradient in evaluation mode is no training
    adapted.model.train()
    with adapted.disabled():
        adapted.model(x)
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    with pytest.raises(AdapterError, match="total_steps=N"):
        adapted.bind(optimizer)
    for wrong in (0, -3, 2.5):
        with pytest.raises(AdapterError, match=f"whole number of at least 1, got {wrong}"):
            adapted.bind(optimizer, total_steps=wrong)  # type: ignore[arg-type]
    adapted.bind(optimizer, total_steps=1)
    adapted.model(x)


def test_other_adapters_are_not_held_up() -> None:
    adapted = _adapted()
    adapted.attach("core.lora", name="plain", targets=["0"], rank=1, also_train=[])
    adapted.model.train()
    x = torch.randn(2, 4)
    adapted.model(x).sum().backward()
    adapted.bind(torch.optim.SGD(adapted.parameters(), 0.1))  # nothing that is trained now has a schedule
    adapted.activate("default")
    with pytest.raises(AdapterError, match="'default'"):
        adapted.model(x)
    adapted.activate("plain", "default")
    with pytest.raises(AdapterError, match="'default'"):
        adapted.model(x)


def test_an_adapter_that_is_used_and_not_trained_needs_no_optimizer() -> None:
    adapted = _adapted()
    adapted.attach("core.lora", name="plain", targets=["0"], rank=1, also_train=[])
    adapted.activate("default", "plain").train_only("plain")
    adapted.model.train()
    x = torch.randn(2, 4)
    adapted.bind(torch.optim.SGD(adapted.parameters(), 0.1))
    adapted.model(x).sum().backward()
    adapted.train_only("plain", "default")
    with pytest.raises(AdapterError, match="'default'"):
        adapted.model(x)


def test_settled() -> None:
    adapted = _adapted()
    assert adapted.settled, "nobody is training it"
    adapted.model.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=4)
    seen = [adapted.settled]
    for _ in range(3):
        _step(adapted, optimizer)
        seen.append(adapted.settled)
    assert seen == [False, False, True, True]


def test_a_copy_is_unbound_and_independent() -> None:
    adapted = _adapted()
    adapted.model.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=4)
    _step(adapted, optimizer)
    twin = peftx.adapted(copy.deepcopy(adapted.model))
    assert not vars(twin._board.schedules["default"]), "it would hold a copy of the optimizer and its moments"
    with pytest.raises(AdapterError, match="bind"):
        twin.model(torch.randn(2, 4))
    other = torch.optim.SGD(twin.parameters(), 0.1)
    twin.bind(other, total_steps=7)
    _step(twin, other)
    assert _log(twin).events == [("before", 1), ("after", 1)] and _log(twin).total_steps == 7
    _step(adapted, optimizer)
    assert _log(adapted).events[-1] == ("after", 2) and len(_log(twin).events) == 2
    assert _log(twin).deltas["0"] is not _log(adapted).deltas["0"]


def test_binding_again_starts_anew() -> None:
    adapted = _adapted()
    adapted.model.train()
    first = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(first, total_steps=2)
    _step(adapted, first)
    second = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(second, total_steps=3)
    _step(adapted, first)  # the old optimizer drives nothing any more
    assert _log(adapted).events == []
    _step(adapted, second)
    assert _log(adapted).events == [("before", 1), ("after", 1)]


def test_binding_often_leaves_one_hook() -> None:
    adapted = peftx.attach(nn.Sequential(nn.Linear(4, 3)), "core.lora", targets=["0"], rank=1, also_train=[])
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    for _ in range(3):
        adapted.bind(optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_removal_and_detaching_release_the_optimizer() -> None:
    adapted = _adapted()
    adapted.attach("core.lora", name="plain", targets=["0"], rank=1, also_train=[])
    adapted.activate("default")
    adapted.model.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=2)
    log = _log(adapted)
    adapted.remove("default")
    adapted.activate("plain")
    optimizer.step()
    assert log.events == []
    adapted.detach()
    optimizer.step()
    assert log.events == []


def test_the_state_goes_on() -> None:
    adapted = _adapted()
    adapted.model.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=4)
    _step(adapted, optimizer)
    _step(adapted, optimizer)
    state = adapted.schedule_state()
    again = _adapted()
    again.model.train()
    other = torch.optim.SGD(again.parameters(), 0.1)
    with pytest.raises(AdapterError, match="bound here are those of no adapter"):
        again.load_schedule_state(state)
    again.bind(other, total_steps=5)
    with pytest.raises(AdapterError, match="total_steps=4"):
        again.load_schedule_state(state)
    again.bind(other, total_steps=4)
    assert not again.settled
    again.load_schedule_state(state)
    assert again.settled
    _step(again, other)
    assert _log(again).events == [("before", 3), ("after", 3)]


class Slice(Log):
    """Trains one entry a step, in turn."""

    def before_step(self, step: int) -> None:
        for delta in self.deltas.values():
            self.store.restrict(delta.g, torch.arange(delta.g.numel()) == step % delta.g.numel())

    def after_step(self, step: int) -> None:
        pass


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.AdamW(groups, 0.1, weight_decay=0.5),
        lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.9),
    ],
)
def test_a_step_may_be_restricted_to_some_entries(make: Any) -> None:
    class Sliced(Timed):
        def schedule(self, config: Any) -> Schedule:
            return Slice()

    adapted = peftx.attach(nn.Sequential(nn.Linear(4, 3)), Sliced)
    (g,) = adapted.parameters()
    with torch.no_grad():
        g.normal_()
    adapted.model.train()
    optimizer = make(adapted.parameters())
    adapted.bind(optimizer, total_steps=6)
    for step in range(1, 7):
        before = g.detach().clone()
        state = {k: v.clone() for k, v in optimizer.state.get(g, {}).items() if k != "step" and v is not None}
        _step(adapted, optimizer)
        moved = (g.detach() != before).nonzero().flatten().tolist()
        assert moved == [step % 3]
        for name, entry in optimizer.state[g].items():
            if name != "step":
                still = [i for i in range(3) if i != step % 3]
                assert torch.equal(entry[still], state.get(name, torch.zeros(3))[still])


def test_mixed_batches_train_a_bound_adapter() -> None:
    adapted = _adapted()
    adapted.attach("core.lora", name="plain", targets=["0"], rank=1, also_train=[])
    adapted.train_only("default", "plain")
    adapted.model.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    with adapted.per_sample(["default", "plain"]), pytest.raises(AdapterError, match="'default'"):
        adapted.model(torch.randn(2, 4))
    adapted.bind(optimizer, total_steps=1)
    with adapted.per_sample(["default", "plain"]):
        adapted.model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    assert _log(adapted).events == [("before", 1), ("after", 1)]
