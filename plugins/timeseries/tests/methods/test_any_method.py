"""Every method that trains weights, of core and of whatever packs are installed, on the hosts of this one."""

from __future__ import annotations

import pytest
import torch

import peftx
from peftx.data.contract import DataContext
from peftx.errors import SelectionError
from peftx.plugins.manager import get_registry
from peftx.runs.matching import why_not
from peftx.tasks import ModelSource
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data.waves import load
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.tasks.forecasting import Forecasting


def fitting() -> list[str]:
    registry = get_registry()
    task = registry.tasks["timeseries.forecasting"].spec
    return [
        name
        for name, entry in registry.methods.items()
        if entry.spec.kind == "adapter" and why_not(entry.spec, task) is None
    ]


@pytest.fixture(scope="module")
def task() -> Forecasting:
    context = DataContext.create(offline=True)
    source = ModelSource("timeseries.random", {"patch": 8, "stride": 8}, lambda _: random_trunk(32, 2, 2))
    config = ForecastingConfig(input_length=48, horizon=12)
    return Forecasting(config, load(WavesConfig(), context), source, context)


def test_there_are_methods_of_core_and_of_this_pack() -> None:
    assert {"core.lora", "core.dora", "core.bitfit", "core.head", "timeseries.gpt4ts"} <= set(fitting())


@pytest.mark.parametrize("method", fitting())
def test_a_method_trains_a_forecaster_and_is_taken_off_again(task: Forecasting, method: str) -> None:
    torch.manual_seed(0)
    model = task.build_model().eval()
    batch = next(iter(task.batches("train", 16)))
    with torch.no_grad():
        before = task.forward(model, batch)
    try:
        adapted = peftx.attach(model, method)
    except SelectionError as error:  # such as prompts, which a causal trunk has no use for
        assert not method.startswith(("core.", "timeseries."))
        pytest.skip(str(error))
    optimizer = torch.optim.AdamW(adapted.param_groups(lr=1e-2))
    adapted.bind(optimizer, total_steps=3)
    for _ in range(3):
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
    with torch.no_grad():
        after = task.forward(model.eval(), batch)
    assert after.shape == before.shape and torch.isfinite(after).all() and not torch.equal(after, before)
    adapted.detach()
    with torch.no_grad():
        assert torch.equal(task.forward(model.eval(), batch), before)
