"""Whatever optimizer drives it, a schedule sees each step once, with gradients before and moved parameters after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

import peftx
from peftx.adapters import Adapted, AdapterMethod, Delta, Schedule, Site
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
    """Writes down what it sees."""

    def before_step(self, step: int) -> None:
        self.events = [*getattr(self, "events", []), ("before", step)]
        self.gradients = {key: delta.g.grad.clone() for key, delta in self.deltas.items()}
        self.values = {key: delta.g.detach().clone() for key, delta in self.deltas.items()}

    def after_step(self, step: int) -> None:
        self.events.append(("after", step))
        for key, delta in self.deltas.items():
            assert delta.g.grad is not None
            assert not torch.equal(delta.g, self.values[key]), "parameters have moved by now"


class Timed(AdapterMethod):
    Config = GainConfig
    Delta = Gain
    kinds = ("linear",)

    def schedule(self, config: Any) -> Schedule:
        return Log()


def _adapted(name: str = "default") -> Adapted:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).train()
    return peftx.attach(model, Timed, name=name)


def _log(adapted: Adapted, name: str = "default") -> Any:
    return adapted._board.binding.running[name].schedule


def _events(steps: int) -> list[tuple[str, int]]:
    return [(what, step) for step in range(1, steps + 1) for what in ("before", "after")]


Make = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda p: torch.optim.AdamW(p, 0.1),
    "adamw foreach": lambda p: torch.optim.AdamW(p, 0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.1, fused=True),
    "adam amsgrad": lambda p: torch.optim.Adam(p, 0.1, amsgrad=True, foreach=False),
    "sgd momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "sgd foreach": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "adagrad foreach": lambda p: torch.optim.Adagrad(p, 0.1, foreach=True),
    "adagrad fused": lambda p: torch.optim.Adagrad(p, 0.1, fused=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=5),
    "lbfgs search": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=5, line_search_fn="strong_wolfe"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("by", ["step()", "step(closure)", "step(closure=)"])
def test_once_a_step(name: str, by: str) -> None:
    if name.startswith("lbfgs") and by == "step()":
        pytest.skip("L-BFGS takes no step without a closure")
    adapted = _adapted()
    optimizer = OPTIMIZERS[name](list(adapted.parameters()))
    adapted.bind(optimizer, total_steps=3)
    generator = torch.Generator().manual_seed(1)
    calls = 0
    for _ in range(3):
        x = torch.randn(5, 4, generator=generator)
        first: dict[str, Tensor] = {}

        def closure(x: Tensor = x, first: dict[str, Tensor] = first) -> Tensor:
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            loss = adapted.model(x).square().sum()
            loss.backward()
            if not first:
                first.update({key: delta.g.grad.clone() for key, delta in _log(adapted).deltas.items()})
            return loss

        if by == "step()":
            loss = closure()
            assert optimizer.step() is None
        else:
            loss = optimizer.step(closure) if by == "step(closure)" else optimizer.step(closure=closure)
        assert loss.item() > 0, "the closure's result is handed through"
        for key, gradient in _log(adapted).gradients.items():
            assert torch.equal(gradient, first[key]), "the gradients of this step, not of the one before"
    assert _log(adapted).events == _events(3)
    assert calls > 3 if name.startswith("lbfgs") else calls == 3


def test_two_adapters_share_a_closure() -> None:
    adapted = _adapted("a")
    adapted.attach(Timed, name="b").activate("a", "b")
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=2)
    for _ in range(2):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = adapted.model(torch.ones(5, 4)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    assert _log(adapted, "a").events == _log(adapted, "b").events == _events(2)


def test_a_closure_that_fails_is_no_step_and_the_next_one_counts() -> None:
    adapted = _adapted()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=2)

    def fails() -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        optimizer.step(fails)
    adapted.model(torch.ones(5, 4)).square().sum().backward()
    optimizer.step()
    assert _log(adapted).events == _events(1)


class Inherited(torch.optim.SGD):
    """A subclass's step and the step it is built on are both hooked by torch."""

    hears = True

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure if self.hears else None)


@pytest.mark.parametrize("by_closure", [False, True])
def test_a_step_built_on_another_is_one(by_closure: bool) -> None:
    torch.optim.SGD([torch.ones(1)], 0.1)  # torch hooks a class when its first instance is made
    adapted = _adapted()
    optimizer = Inherited(adapted.parameters(), 0.1)
    adapted.bind(optimizer, total_steps=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = adapted.model(torch.ones(5, 4)).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        if not by_closure:
            closure()
        optimizer.step(closure if by_closure else None)
    assert _log(adapted).events == _events(2)


def test_a_closure_that_is_never_called_is_refused() -> None:
    adapted = _adapted()
    optimizer = Inherited(adapted.parameters(), 0.1)
    optimizer.hears = False
    adapted.bind(optimizer, total_steps=2)
    adapted.model(torch.ones(5, 4)).square().sum().backward()
    with pytest.raises(AdapterError, match="Inherited was given a closure and did not call it"):
        optimizer.step(lambda: None)


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler(fused: bool, unscale: bool) -> None:
    adapted, plain = _adapted(), _adapted()
    optimizers = []
    for handle in (adapted, plain):
        optimizers.append(torch.optim.AdamW(handle.parameters(), 0.1, fused=fused))
        handle.bind(optimizers[-1], total_steps=4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10)
    for step in range(4):
        x = torch.full((5, 4), 0.1 * step + 0.1)
        scaler.scale(adapted.model(x).square().sum()).backward()
        if step == 2:
            next(iter(adapted.parameters())).grad[0] = torch.nan
        if unscale:
            scaler.unscale_(optimizers[0])
        scaler.step(optimizers[0])
        scaler.update()
        optimizers[0].zero_grad()
        if step != 2:
            plain.model(x).square().sum().backward()
            optimizers[1].step()
            optimizers[1].zero_grad()
    assert _log(adapted).events == _log(plain).events == _events(3)
    for key, gradient in _log(plain).gradients.items():
        torch.testing.assert_close(_log(adapted).gradients[key], gradient)
    for ours, theirs in zip(adapted.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_optimizer_inside_a_wrapper_is_bound() -> None:
    class Wrapper(Optimizer):
        """As accelerator libraries do it: an optimizer by class, without the machinery of one."""

        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

        @property
        def param_groups(self) -> Any:
            return self.optimizer.param_groups

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.optimizer.step(closure)

    adapted = _adapted()
    wrapped = Wrapper(Wrapper(torch.optim.SGD(adapted.parameters(), 0.1)))
    adapted.bind(wrapped, total_steps=1)
    adapted.model(torch.ones(5, 4)).square().sum().backward()
    wrapped.step()
    assert _log(adapted).events == _events(1)


def test_what_is_no_optimizer_is_refused() -> None:
    class Own:
        param_groups = ()

    with pytest.raises(AdapterError, match="expected a torch optimizer to bind to, got a Own"):
        _adapted().bind(Own(), total_steps=1)  # type: ignore[arg-type]
