"""What a method costs: counted bytes against closed formulas, no trace of the counting, times that are times."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from peftx.adapters import Adapted, AdapterMethod, Delta, attach
from peftx.config.adapter import AdapterConfig
from peftx.config.run import TrainConfig
from peftx.errors import AdapterError
from peftx.runs import efficiency
from peftx.runs.efficiency import measure, saved_bytes
from peftx.training import Backend, fit, seed_all

N, FEATURES, WIDTH, CLASSES, RANK = 12, 8, 16, 3, 2
KEYS = (
    "saved_bytes",
    "saved_batch",
    "optimizer_bytes",
    "forward_overhead",
    "merged_overhead",
    "switch_seconds",
)


@pytest.fixture
def make_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function of the network's options that returns the toy task."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "toypack"))
    import toypack_plugin
    import toypack_task

    from peftx.tasks import ModelSource

    def make(**options: Any) -> Any:
        points = toypack_task.load_points(toypack_plugin.DataConfig(), None)
        config = toypack_plugin.ModelConfig(**options)
        source = ModelSource("toy.net", {}, lambda outputs: toypack_task.build_net(config, outputs))
        return toypack_task.Sorting(SimpleNamespace(), points, source, None)

    yield make
    for name in ("toypack_plugin", "toypack_task"):
        sys.modules.pop(name, None)


@pytest.fixture
def cpu() -> Backend:
    return Backend("cpu")


def adapt(task: Any, method: str, **options: Any) -> Adapted:
    seed_all(0, "model")
    model = task.build_model()
    seed_all(0, "adapter")
    return attach(model, method, **options)


def batch_of(task: Any, size: int = N) -> dict[str, Tensor]:
    return next(iter(task.batches("train", size)))


# --- counted bytes ------------------------------------------------------------------------------------------
#: what the loss keeps: the log-probabilities, the labels (int64), the sum of the weights of their classes
LOSS = N * CLASSES * 4 + N * 8 + 4


def test_a_head_keeps_its_input(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    model = adapt(task, "core.head").model
    assert saved_bytes(model, task, batch_of(task), cpu) == N * WIDTH * 4 + LOSS


def test_lora_keeps_its_input_and_the_products_with_a(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    lora = {"targets": ["glob:*fc1"], "rank": RANK}
    # x and x A^T; tanh(...), which the norm keeps as well; mean and deviation of the norm; the input of the head
    expected = 4 * N * (FEATURES + RANK + WIDTH + 2 + WIDTH) + LOSS
    assert saved_bytes(adapt(task, "core.lora", **lora).model, task, batch_of(task), cpu) == expected
    assert (
        saved_bytes(adapt(task, "core.lora", **lora).model, task, batch_of(task, 6), cpu) == expected // 2 + 2
    )


def test_a_checkpointed_part_keeps_its_inputs_alone(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    adapted = adapt(task, "core.lora", targets=["glob:*fc1"], rank=RANK)
    model, whole = adapted.model, saved_bytes(adapted.model, task, batch_of(task), cpu)

    def trunk(x: Tensor) -> Tensor:
        return model.norm(model.fc1(x).tanh())

    def loss(_: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inside = checkpoint(trunk, batch["points"], use_reentrant=False)
        return cross_entropy(model.head(inside), batch["labels"])

    task.loss = loss
    kept = saved_bytes(model, task, batch_of(task), cpu)
    assert kept == 4 * N * (FEATURES + WIDTH) + LOSS < whole


def test_what_a_forward_drops_on_the_way_is_not_kept(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    model, real = adapt(task, "core.full").model, task.loss
    kept = saved_bytes(model, task, batch_of(task), cpu)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        model(batch["points"]).exp().sum().item()  # exp keeps its own output
        return real(model, batch)

    task.loss = loss
    assert saved_bytes(model, task, batch_of(task), cpu) == kept


def test_a_model_that_trains_nothing_keeps_nothing(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    model = task.build_model().requires_grad_(False)
    assert saved_bytes(model, task, batch_of(task), cpu) == 0


def test_mixed_precision_keeps_half_sized_activations(make_task: Callable[..., Any]) -> None:
    task = make_task(depth=3)
    model = adapt(task, "core.lora", targets=["all-linear"], rank=RANK).model
    whole = saved_bytes(model, task, batch_of(task, 64), Backend("cpu"))
    half = saved_bytes(model, task, batch_of(task, 64), Backend("cpu", "bf16"))
    assert 0.5 * whole < half < whole


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_the_budgets_of_a_vit_are_counted_alike(method: str, cpu: Backend) -> None:
    """The same figure as the gate of core/tests/adapters, which counts in its own way."""
    pytest.importorskip("timm", reason="the budgets are those of a timm ViT")
    path = Path(__file__).parents[1] / "adapters" / "test_budgets.py"
    spec = importlib.util.spec_from_file_location("peftx_budgets", path)
    assert spec is not None and spec.loader is not None
    budgets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(budgets)
    model = budgets.adapted(method, dropout=0.1)
    task: Any = SimpleNamespace(
        context=lambda batch: {}, loss=lambda model, batch: model(batch["images"]).square().sum()
    )
    assert saved_bytes(model, task, {"images": budgets.images()}, cpu) == budgets.kept_bytes(model)


# --- no trace -----------------------------------------------------------------------------------------------
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora with dropout": ("core.lora", {"targets": ["all-linear"], "rank": RANK, "dropout": 0.3}),
    "dora": ("core.dora", {"targets": ["all-linear"], "rank": RANK}),
    "full, with statistics": ("core.full", {}),
    "lora in a training trunk": ("core.lora", {"targets": ["all-linear"], "rank": RANK, "trunk": "train"}),
    "snella, scheduled": ("vision.snella", {"targets": ["glob:*fc1", "glob:deep*"], "rank": 4}),
}


def state_of(adapted: Adapted) -> dict[str, Any]:
    """Everything a training has moved, the schedules included, as text and tensors."""
    model = adapted.model
    return {
        **{f"tensor {key}": value.detach().clone() for key, value in adapted.tensors().items()},
        **{f"buffer {key}": value.clone() for key, value in model.named_buffers()},
        "schedules": repr(adapted.schedule_state()),
        "modes": [module.training for module in model.modules()],
        "generators": (random.random(), np.random.rand(), torch.rand(3)),
        "active": adapted.active,
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.parametrize("name", METHODS)
def test_counting_between_the_steps_changes_no_bit_of_a_training(
    make_task: Callable[..., Any], cpu: Backend, name: str
) -> None:
    method, options = METHODS[name]
    if method.startswith("vision."):
        pytest.importorskip("peftx_vision", reason="SNELLA is the vision pack's")
    counted: list[int] = []

    def train(count: bool) -> dict[str, Any]:
        task = make_task(depth=2, batch_norm=True)
        adapted = adapt(task, method, **options)
        batch = batch_of(task)

        def look(step: int, metrics: Any) -> None:
            if count:
                counted.append(saved_bytes(adapted.model, task, batch, cpu))

        fit(adapted, task, TrainConfig(lr=1e-2, epochs=4, batch_size=16), backend=cpu, on_step=look)
        return state_of(adapted)

    with_it, without = train(True), train(False)
    assert len(counted) == 4 * 6 and min(counted) > 0
    assert with_it.keys() == without.keys()
    assert [key for key in with_it if not same(with_it[key], without[key])] == []


def test_gradients_and_modes_stay(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task(batch_norm=True)
    adapted = adapt(task, "core.full")
    model, batch = adapted.model, batch_of(task)
    model.train()
    task.loss(model, batch).backward()
    model.head.eval()  # a user's own choice, which a plain train() would undo
    before = [(p.grad, p.grad.clone()) for p in adapted.parameters() if p.grad is not None]
    modes = [module.training for module in model.modules()]
    assert len(before) == 6
    saved_bytes(model, task, batch, cpu)
    after = [p.grad for p in adapted.parameters()]
    assert all(now is grad and torch.equal(now, was) for now, (grad, was) in zip(after, before, strict=True))
    assert [module.training for module in model.modules()] == modes


def test_statistics_that_a_forward_replaces_are_put_back(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    model = adapt(task, "core.head").model
    model.register_buffer("seen", torch.zeros(1))
    kept = model.seen
    real = task.loss

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        model.seen = model.seen + 1
        return real(model, batch)

    task.loss = loss
    saved_bytes(model, task, batch_of(task), cpu)
    assert model.seen is kept and kept.item() == 0


def test_a_forward_that_waits_for_its_backward_is_not_confused(
    make_task: Callable[..., Any], cpu: Backend
) -> None:
    """Activation checkpointing goes by the one selection that waits; the counted forward must not be another."""
    task = make_task(batch_norm=True)
    adapted = adapt(task, "core.lora", targets=["glob:*fc1"], rank=RANK, trunk="train")
    model, batch = adapted.model.train(), batch_of(task)

    def gradients(between: Callable[[], object]) -> list[Tensor]:
        model.zero_grad()
        inside = checkpoint(lambda x: model.norm(model.fc1(x).tanh()), batch["points"], use_reentrant=False)
        between()
        cross_entropy(model.head(inside), batch["labels"]).backward()
        return [p.grad.clone() for p in adapted.parameters() if p.grad is not None]

    def count() -> None:
        task.context = lambda batch: {"user": torch.zeros(N)}
        saved_bytes(model, task, batch, cpu)

    plain = gradients(lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(count), strict=True))


def test_a_failing_loss_leaves_no_trace_either(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task(batch_norm=True)
    adapted = adapt(task, "core.full")

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        model(batch["points"])
        torch.rand(5)
        raise ValueError("no")

    task.loss = loss
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(ValueError, match="no"):
        saved_bytes(adapted.model.eval(), task, batch_of(task), cpu)
    assert torch.equal(torch.rand(1), expected)
    assert adapted.model.norm.num_batches_tracked == 0 and not adapted.model.norm.training


# --- all of it ----------------------------------------------------------------------------------------------
def measured(task: Any, adapted: Adapted, backend: Backend, **options: Any) -> dict[str, Any]:
    train = TrainConfig(lr=1e-2, batch_size=N)
    return measure(adapted, task, train, backend, **{"optimizer_bytes": 5, "note": pytest.fail, **options})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["core.full", "core.head", "core.bitfit", "core.lora", "core.dora"])
def test_every_figure_of_a_method_that_merges(
    make_task: Callable[..., Any], method: str, precision: str
) -> None:
    task = make_task()
    options = {"targets": ["glob:*fc1"]} if method in ("core.lora", "core.dora") else {}
    adapted = adapt(task, method, **options)
    backend = Backend("cpu", precision)
    draws = torch.Generator().manual_seed(efficiency.generator(0, "efficiency").initial_seed())
    batch = next(iter(task.batches("train", N, train=True, generator=draws)))
    expected = saved_bytes(adapted.model, task, batch, backend)
    figures = measured(task, adapted, backend)
    assert tuple(figures) == KEYS and json.loads(json.dumps(figures)) == figures
    assert (figures["saved_bytes"], figures["saved_batch"], figures["optimizer_bytes"]) == (expected, N, 5)
    for name in KEYS[3:]:
        assert math.isfinite(figures[name]) and figures[name] > 0


def test_a_scheduled_method_is_measured_while_it_is_bound(
    make_task: Callable[..., Any], cpu: Backend
) -> None:
    pytest.importorskip("peftx_vision", reason="SNELLA is the vision pack's")
    task = make_task()
    adapted = adapt(task, "vision.snella", targets=["glob:*fc1"], rank=4)
    with pytest.raises(AdapterError, match="bind"):
        saved_bytes(adapted.model, task, batch_of(task), cpu)
    adapted.bind(torch.optim.AdamW(adapted.parameters()), total_steps=30)
    figures = measured(task, adapted, cpu)
    assert all(figures[name] > 0 for name in KEYS)


class Rows(Delta):
    """An update that depends on the input, so there is nothing to merge."""

    routed = True

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, base: Any) -> Tensor:
        y = base(x)
        return y + self.gain * y * x.mean()

    @staticmethod
    def param_count(site: Any, config: Any) -> int:
        return 1


class Routed(AdapterMethod):
    """The method of it."""

    Config = AdapterConfig
    Delta = Rows
    kinds = ("linear",)


def test_what_cannot_be_merged_has_no_merged_figure(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    figures = measured(task, adapt(task, Routed, targets=["glob:*fc1"]), cpu)  # type: ignore[arg-type]
    assert figures["merged_overhead"] is None
    assert all(figures[name] > 0 for name in KEYS if name != "merged_overhead")


def test_without_memory_for_a_copy_the_base_is_the_model_with_its_adapter_off(
    make_task: Callable[..., Any], cpu: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency, "_bare_copy", lambda adapted, device: None)
    task = make_task()
    figures = measured(task, adapt(task, "core.lora", targets=["glob:*fc1"]), cpu)
    assert figures["forward_overhead"] > 0 and figures["merged_overhead"] > 0


def test_a_full_device_takes_no_second_adapter_and_no_copy(
    make_task: Callable[..., Any], cpu: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    task = make_task()
    adapted = adapt(task, "core.lora", targets=["glob:*fc1"])
    assert efficiency._bare_copy(adapted, cpu.device) is None
    figures = measured(task, adapted, cpu)
    assert figures["switch_seconds"] is None and figures["merged_overhead"] > 0


def test_each_failure_costs_its_own_figure_alone(
    make_task: Callable[..., Any], cpu: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("too much\nof it")

    task = make_task()
    told: list[str] = []

    def figures() -> dict[str, Any]:
        return measured(task, adapt(task, "core.lora", targets=["glob:*fc1"]), cpu, note=told.append)

    with monkeypatch.context() as patch:
        patch.setattr(Adapted, "attach", refuse)
        found = figures()
        assert [name for name in KEYS if found[name] is None] == ["switch_seconds"]
    with monkeypatch.context() as patch:
        patch.setattr(task, "loss", refuse)
        found = figures()
        assert [name for name in KEYS if found[name] is None] == ["saved_bytes", "saved_batch"]
    with monkeypatch.context() as patch:
        patch.setattr(efficiency.artifacts, "merge", refuse)
        found = figures()
        assert [name for name in KEYS if found[name] is None] == ["merged_overhead"]
    assert told[0] == "the time of a switch could not be measured (OutOfMemoryError: too much of it)"
    assert len(told) == 3
    assert "could not" not in str(measured(task, adapt(task, "core.head"), cpu, note=None))


def test_the_cost_is_bounded_and_the_generators_are_left_alone(
    make_task: Callable[..., Any], cpu: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency, "BUDGET", 0.0)
    task = make_task()
    calls: list[int] = []
    real = task.forward
    monkeypatch.setattr(
        task, "forward", lambda model, batch: (calls.append(len(batch["points"])), real(model, batch))[1]
    )
    adapted = adapt(task, "core.lora", targets=["glob:*fc1"], dropout=0.5)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    measure(adapted, task, TrainConfig(lr=1e-2, batch_size=64), cpu, optimizer_bytes=None)
    assert torch.equal(torch.rand(1), expected)
    # one training batch; then twice a warm-up and seven repeats of two, on no more samples than validation has
    assert calls == [64] + 2 * (1 + 7) * 2 * [30]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_figures_of_a_gpu(make_task: Callable[..., Any], cpu: Backend) -> None:
    task = make_task()
    adapted = adapt(task, "core.lora", targets=["glob:*fc1"])
    counted = saved_bytes(adapted.model, task, batch_of(task), cpu)
    gpu = Backend("cuda")
    adapted.model.to(gpu.device)
    before = torch.cuda.get_rng_state_all()
    assert saved_bytes(adapted.model, task, batch_of(task), gpu) == pytest.approx(counted, rel=0.2)
    figures = measured(task, adapted, gpu)
    assert all(figures[name] > 0 for name in KEYS)
    assert all(torch.equal(a, b) for a, b in zip(before, torch.cuda.get_rng_state_all(), strict=True))
