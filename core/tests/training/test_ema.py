"""The average of what is trained: its values by hand, and what a training keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.config.run import TrainConfig
from peftx.evaluation import evaluate
from peftx.training import Backend, fit
from peftx.training.ema import Ema


def adapted(dtype: torch.dtype = torch.float64) -> peftx.Adapted:
    torch.manual_seed(0)
    return peftx.attach(nn.Sequential(nn.Linear(4, 3, dtype=dtype)), "core.full")


def test_the_formula() -> None:
    handle, ema = adapted(), Ema(0.9)
    wanted: dict[str, torch.Tensor] = {}
    for step in range(1, 201):
        with torch.no_grad():
            for name, parameter in handle.named_parameters():
                parameter.add_(0.1 * step)
                d = min(0.9, (1 + step) / (10 + step))
                before = wanted.get(name, parameter.clone())
                wanted[name] = d * before + (1 - d) * parameter
        ema.update(handle, step)
    with ema.applied(handle):
        for name, parameter in handle.named_parameters():
            torch.testing.assert_close(parameter.detach(), wanted[name], rtol=1e-12, atol=0)


def test_the_values_come_back_after_the_block_also_after_an_error() -> None:
    handle, ema = adapted(), Ema(0.5)
    ema.update(handle, 1)
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter.mul_(3)
    before = [p.detach().clone() for p in handle.parameters()]
    with pytest.raises(RuntimeError), ema.applied(handle):
        assert not torch.equal(next(handle.parameters()), before[0])
        raise RuntimeError
    assert all(torch.equal(a, b) for a, b in zip(handle.parameters(), before, strict=True))


def test_half_precision_is_averaged_in_float32() -> None:
    value = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    handle: Any = SimpleNamespace(named_parameters=lambda: [("value", value)])
    ema = Ema(0.999)
    ema.update(handle, 1)
    with torch.no_grad():
        value.mul_(2)
    ema.update(handle, 10**6)
    assert ema.state_dict()["value"].dtype == torch.float32
    assert ema.state_dict()["value"].tolist() == pytest.approx(
        [1.001] * 3, abs=1e-6
    )  # bfloat16 has no such number
    ema.apply(handle)
    assert value.dtype == torch.bfloat16


def test_training_validates_and_keeps_the_average(toy: Callable[..., Any]) -> None:
    def train(without_val: bool, **settings: Any) -> tuple[Any, Any, list[torch.Tensor]]:
        task = toy()
        if without_val:
            del task.data.splits["val"]
        torch.manual_seed(0)
        handle = peftx.attach(task.build_model(), "core.lora", targets=["glob:*fc1"])
        config = TrainConfig(lr=3e-2, epochs=3, batch_size=16, **settings)
        done = fit(handle, task, config, backend=Backend("cpu"))
        return task, done, [p.detach().clone() for p in handle.parameters()]

    _, _, plain = train(True)
    _, _, averaged = train(True, ema=0.9)
    assert not any(torch.equal(a, b) for a, b in zip(plain, averaged, strict=True))
    task, done, values = train(False, ema=0.9)
    torch.manual_seed(0)
    handle = peftx.attach(task.build_model(), "core.lora", targets=["glob:*fc1"])
    with torch.no_grad():
        for parameter, value in zip(handle.parameters(), values, strict=True):
            parameter.copy_(value)
    best = next(line for line in done.history if line["epoch"] == done.best_epoch)
    assert evaluate(task, handle.model, "val", 256)["loss"] == pytest.approx(best["loss"], rel=1e-6)
