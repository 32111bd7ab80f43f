"""The loop: what it trains, selects, reproduces and refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from peftx.adapters import Adapted, attach
from peftx.config.run import TrainConfig
from peftx.errors import ConfigError, TrainingError
from peftx.evaluation import evaluate
from peftx.training import Backend, Fit, Progress, fit, seed_all

METHODS = {
    "core.lora": {"targets": ["glob:*fc1"]},
    "core.head": {},
    "core.full": {},
    "core.bitfit": {},
    "core.dora": {"targets": ["glob:*fc1"]},
}


def build(task: Any, method: str, **options: Any) -> Adapted:
    seed_all(0, "model")
    model = task.build_model()
    seed_all(0, "adapter")
    return attach(model, method, **{**METHODS[method], **options})


def train(task: Any, method: str = "core.lora", seed: int = 0, **settings: Any) -> tuple[Adapted, Fit]:
    adapted = build(task, method)
    config = TrainConfig(**{"lr": 3e-2, "epochs": 5, "batch_size": 16, **settings})
    return adapted, fit(adapted, task, config, seed=seed, backend=Backend("cpu"))


def values(adapted: Adapted) -> list[torch.Tensor]:
    return [p.detach().clone() for p in adapted.parameters()]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(toy: Callable[..., Any], method: str) -> None:
    task = toy()
    before = evaluate(task, build(task, method).model, "test", 16)
    adapted, done = train(task, method)
    after = evaluate(task, adapted.model, "test", 16)
    assert after["loss"] < before["loss"] * 0.8
    assert after["accuracy"] > 80
    assert done.steps == 5 * math.ceil(90 / 16)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits_and_another_seed_differs(toy: Callable[..., Any], method: str) -> None:
    runs = [train(toy(), method, seed) for seed in (3, 3, 4)]
    first, second, other = (values(adapted) for adapted, _ in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert runs[0][1].train_loss == runs[1][1].train_loss


def test_the_global_generators_do_not_matter(toy: Callable[..., Any]) -> None:
    one = train(toy())[0]
    adapted = build(toy(), "core.lora")
    torch.rand(17)
    task = toy()
    fit(adapted, task, TrainConfig(lr=3e-2, epochs=5, batch_size=16), backend=Backend("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(values(one), values(adapted), strict=True))


def test_a_head_probe_leaves_the_trunk_and_its_buffers_bit_identical(toy: Callable[..., Any]) -> None:
    task = toy(batch_norm=True)
    seed_all(0, "model")
    fresh = task.build_model().state_dict()
    adapted, _ = train(task, "core.head")
    adapted.detach()
    now = adapted.model.state_dict()
    assert fresh.keys() == now.keys()
    assert all(torch.equal(fresh[key], now[key]) for key in fresh)


@pytest.mark.parametrize(
    ("method", "moves"), [("core.full", True), ("core.lora", False), ("core.head", False)]
)
def test_batch_norm_statistics_move_in_full_tuning_only(
    toy: Callable[..., Any], method: str, moves: bool
) -> None:
    adapted, _ = train(toy(batch_norm=True), method)
    assert bool(adapted.model.norm.running_mean.abs().sum() > 0) == moves


def test_the_best_epoch_brings_its_own_batch_norm_statistics(toy: Callable[..., Any]) -> None:
    task = toy(batch_norm=True, spread=3.0)
    adapted, done = train(task, "core.full", epochs=10, lr=0.2, schedule="constant")
    best = max(done.history, key=lambda row: (row["accuracy"], -row["loss"]))
    assert done.best_epoch != 10
    assert evaluate(task, adapted.model, "val", 256, backend=Backend("cpu"))["loss"] == best["loss"]


def test_a_head_probe_builds_no_graph_through_the_trunk(toy: Callable[..., Any]) -> None:
    def saved(depth: int, method: str) -> int:
        task = toy(depth=depth)
        adapted = build(task, method, **({"targets": ["all-linear"]} if "lora" in method else {}))
        adapted.model.train()
        sizes: dict[int, int] = {}
        own = {p.data_ptr() for p in adapted.model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            task.loss(adapted.model, next(iter(task.batches("train", 64))))
        return sum(sizes.values())

    assert saved(8, "core.head") == saved(1, "core.head") > 0
    assert saved(8, "core.lora") > 2 * saved(1, "core.lora")


def test_the_best_validation_epoch_is_what_stays(toy: Callable[..., Any]) -> None:
    task = toy(spread=3.0)
    adapted, done = train(task, "core.full", epochs=10, lr=0.2, schedule="constant")
    best = max(done.history, key=lambda row: (row["accuracy"], -row["loss"]))
    now = evaluate(task, adapted.model, "val", 256, backend=Backend("cpu"))
    assert done.best_epoch == best["epoch"] != 10
    assert now["accuracy"] == best["accuracy"] and now["loss"] == best["loss"]
    assert not adapted.model.training


def test_test_data_are_never_looked_at(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy()
    seen: set[str] = set()
    batches = task.batches
    monkeypatch.setattr(task, "batches", lambda split, *a, **k: (seen.add(split), batches(split, *a, **k))[1])
    train(task)
    assert seen == {"train", "val"}


def test_accumulation_equals_one_large_batch(toy: Callable[..., Any]) -> None:
    # 90 samples: the last group of an epoch is smaller, and so is its last batch
    whole = fit_frozen(toy(), batch_size=32, accumulate=1)
    parts = fit_frozen(toy(), batch_size=8, accumulate=4)
    assert whole[1].steps == parts[1].steps == 2 * 3
    for a, b in zip(values(whole[0]), values(parts[0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def fit_frozen(task: Any, **settings: Any) -> tuple[Adapted, Fit]:
    """LoRA keeps batch statistics frozen, so batches of different sizes are comparable."""
    adapted = build(task, "core.lora")
    config = TrainConfig(lr=1e-3, epochs=2, **settings)
    return adapted, fit(adapted, task, config, backend=Backend("cpu"))


def test_the_learning_rate_follows_the_schedule_by_optimizer_step(toy: Callable[..., Any]) -> None:
    task = toy()
    rates: list[float] = []
    config = TrainConfig(lr=1.0, head_lr=0.5, epochs=10, batch_size=45, accumulate=2, warmup=0.2)
    fit(
        build(task, "core.lora"),
        task,
        config,
        backend=Backend("cpu"),
        on_step=lambda step, metrics: rates.append(metrics["lr"]),
    )
    assert len(rates) == 10
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))


def test_clipping_bounds_the_step(toy: Callable[..., Any]) -> None:
    free = train(toy(), "core.head", epochs=1)[0]
    clipped = train(toy(), "core.head", epochs=1, clip=1e-12, weight_decay=0.0)[0]
    start = values(build(toy(), "core.head"))
    moved = max(float((a - b).abs().max()) for a, b in zip(values(clipped), start, strict=True))
    free_moved = max(float((a - b).abs().max()) for a, b in zip(values(free), start, strict=True))
    assert moved < 1e-3 * free_moved


@pytest.mark.parametrize("step", [1, 7])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_a_hint(toy: Callable[..., Any], step: int) -> None:
    with pytest.raises(TrainingError, match=rf"nan at step {step} of 30.*--train.lr.*--train.clip 1.0"):
        train(toy(explode_at=step))


def test_a_site_the_model_never_calls_is_an_error_that_names_it(toy: Callable[..., Any]) -> None:
    task = toy(unused=True)
    adapted = build(task, "core.lora", targets=["glob:*fc1", "glob:*unused"])
    with pytest.raises(TrainingError, match=r"never uses.*unused.*--method.exclude"):
        fit(adapted, task, TrainConfig(lr=1e-2, epochs=1), backend=Backend("cpu"))


def test_no_learning_rate_is_an_error(toy: Callable[..., Any]) -> None:
    task = toy()
    with pytest.raises(ConfigError, match=r"--train\.lr"):
        fit(build(task, "core.lora"), task, TrainConfig(), backend=Backend("cpu"))


def test_progress_hears_every_step(toy: Callable[..., Any]) -> None:
    class Heard(Progress):
        def __init__(self) -> None:
            self.begun: list[tuple[str, int]] = []
            self.steps = self.ends = 0

        def begin(self, label: str, total: int) -> None:
            self.begun.append((label, total))

        def advance(self, metrics: dict[str, float] | None = None) -> None:
            assert metrics and metrics["loss"] > 0
            self.steps += 1

        def end(self, summary: str = "") -> None:
            self.ends += 1

    task, heard = toy(), Heard()
    config = TrainConfig(lr=1e-2, epochs=2, batch_size=30)
    fit(build(task, "core.lora"), task, config, backend=Backend("cpu"), progress=heard)
    assert heard.begun == [("train", 6)]
    assert (heard.steps, heard.ends) == (6, 1)


def test_bf16_autocast_trains_fp32_parameters(toy: Callable[..., Any]) -> None:
    task = toy()
    adapted = build(task, "core.lora")
    done = fit(adapted, task, TrainConfig(lr=3e-2, epochs=3, batch_size=16), backend=Backend("cpu", "bf16"))
    assert done.train_loss < math.log(3)
    assert {p.dtype for p in adapted.parameters()} == {torch.float32}


def test_validation_is_set_aside(toy: Callable[..., Any]) -> None:
    task = toy()
    inside: list[bool] = []

    @contextmanager
    def aside() -> Iterator[None]:
        inside.append(True)
        yield

    config = TrainConfig(lr=1e-2, epochs=3, batch_size=30)
    fit(build(task, "core.lora"), task, config, backend=Backend("cpu"), aside=aside)
    assert len(inside) == 3


def test_a_task_may_select_by_another_metric_than_it_ranks_by(toy: Callable[..., Any]) -> None:
    task = toy()
    plain = type(task)

    class Apart(plain):  # type: ignore[valid-type,misc]
        primary = "only_on_test"
        selects, selects_higher_is_better = "loss", False

    task.__class__ = Apart
    assert (Apart.decides("val"), Apart.decides("test")) == (("loss", False), ("only_on_test", True))
    _, done = train(task, epochs=6, lr=1.0)  # a rate at which the loss goes up and down
    losses = {line["epoch"]: line["loss"] for line in done.history}
    assert done.best_epoch == min(losses, key=losses.__getitem__)
    assert len(set(losses.values())) > 1
