"""Training on cached features: the same training bit for bit, only where it is one, and said where it is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peftx.adapters import Adapted, attach
from peftx.config.run import TrainConfig
from peftx.errors import ConfigError, Interrupted
from peftx.tasks.features import FeatureCache, FeatureTask
from peftx.training import Backend, Fit, Progress, fit, seed_all
from peftx.training.checkpoint import Checkpoint
from peftx.training.features import cache_features, trained_end
from peftx.training.seeds import random_state
from peftx.training.stopping import Stop

TRAIN = {"epochs": 3, "batch_size": 16, "lr": 0.1, "eval_batch_size": 20}


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def featured(toy: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the cache's mode and more that returns the toy task with features; `change` changes its network."""

    def make(
        mode: str = "auto",
        mib: int = 64,
        obstacle: str = "",
        change: Callable[[nn.Module], Any] = lambda model: None,
        **options: Any,
    ) -> Any:
        class Featured(toy.module.Sorting):  # type: ignore[name-defined, misc]
            feature_cache = FeatureCache(mode, mib)  # type: ignore[arg-type]

            def feature_obstacle(self) -> str:
                return obstacle

            def feature_batches(
                self, split: str, size: int, features: Tensor, *, train: bool = False, generator: Any = None
            ) -> Any:
                points = toy.module.Points(features, self.data.splits[split].classes)
                return toy.module.PointBatches(points, size, generator if train else None)

            def build_model(self) -> nn.Module:
                model = super().build_model()
                change(model)
                return model

        task = toy(**options)
        task.__class__ = Featured
        assert isinstance(task, FeatureTask)
        return task

    return make


def adapt(task: Any, method: str = "core.head", **options: Any) -> Adapted:
    seed_all(0, "model")
    return attach(task.build_model(), method, **options)


def trained(task: Any, method: str = "core.head", train: Any = (), **options: Any) -> tuple[Fit, Any, Any]:
    adapted, progress = adapt(task, method, **options), Notes()
    losses: list[Any] = []
    done = fit(
        adapted,
        task,
        TrainConfig(**TRAIN | dict(train)),
        backend=Backend("cpu"),
        progress=progress,
        on_step=lambda step, metrics: losses.append((step, metrics)),
    )
    return done, [value.clone() for value in adapted.tensors().values()], (losses, progress.notes)


def same(one: Any, other: Any) -> None:
    """The same training: every loss, every validation and every bit of what was trained."""
    assert one[2][0] == other[2][0] and one[0].history == other[0].history
    assert one[0].train_loss == other[0].train_loss and one[0].best_epoch == other[0].best_epoch
    assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"accumulate": 2, "clip": 0.5},
        {"ema": 0.9, "patience": 1},
        {"batch_size": 7, "eval_batch_size": 4},
    ],
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_is_the_same_training_bit_for_bit(featured: Any, train: dict[str, Any], batch_norm: bool) -> None:
    whole = trained(featured("off", batch_norm=batch_norm, depth=3), train=train)
    cached = trained(featured("auto", batch_norm=batch_norm, depth=3), train=train)
    same(whole, cached)
    facts = dict(cached[0].features)
    assert facts.pop("seconds") > 0
    assert facts == {"cached": True, "module": "head", "exact": True, "bytes": (90 + 30) * 16 * 4}
    assert whole[0].features == {} and cached[2][1] == []


def test_the_trunk_runs_once_a_sample(featured: Any) -> None:
    rows: list[int] = []

    def count(model: nn.Module) -> None:
        model.fc1.register_forward_hook(lambda _module, given, _output: rows.append(len(given[0])))

    done, *_ = trained(featured(change=count), train={"epochs": 20})
    assert done.features["cached"]
    # a batch of two that checks the adapter; four batches that are looked at, the first of them twice, and 256 rows or
    # more in batches of sixteen and of ten; each split once, the last batch of ten in the company of six more
    assert sum(rows) == 2 + (64 + 16 + 256 + 260) + (90 + 6) + 30


def test_what_is_trained_lies_behind_a_module(featured: Any) -> None:
    task = featured()
    assert trained_end(adapt(task)) == "head"
    assert trained_end(adapt(task, "core.lora", targets=["head"], also_train=[])) == "head"
    assert trained_end(adapt(task, "core.lora", targets=["glob:*fc1"])) == ""
    assert trained_end(adapt(task, "core.full")) == ""


def test_another_method_whose_trained_part_is_the_head(featured: Any) -> None:
    lora: dict[str, Any] = {"method": "core.lora", "targets": ["head"], "also_train": [], "trunk": "eval"}
    cached = trained(featured("auto"), **lora)
    assert cached[0].features["module"] == "head"
    same(trained(featured("off"), **lora), cached)


def _dropout(model: nn.Module) -> None:
    model.norm = nn.Sequential(model.norm, nn.Dropout(0.2))


def _mixing(model: nn.Module) -> None:
    model.norm.register_forward_hook(lambda _module, _given, output: output - output.mean(0))


def _twice(model: nn.Module) -> None:
    model.norm.register_forward_hook(lambda _module, _given, output: output + 0 * model.head(output).sum())


def _after(model: nn.Module) -> None:
    model.register_forward_hook(lambda _module, _given, output: output * 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"obstacle": "hflip changes training images"}, "hflip changes training images"),
        ({"change": _dropout}, "not the same twice in training"),
        ({"change": _mixing}, "depends on the batch"),
        ({"change": _twice}, "head is called 2 times"),
        ({"change": _after}, "the model goes on after head"),
        ({"batch_norm": True}, "moves its statistics"),
        ({"mib": 0}, "0 MiB and cache_features_mib allows 0"),
    ],
)
def test_where_it_would_be_another_training_it_is_not_done_and_says_why(
    featured: Any, options: dict[str, Any], words: str
) -> None:
    whole = trained(featured("off", **options), trunk="train")
    auto = trained(featured("auto", **options), trunk="train")
    same(whole, auto)
    assert auto[0].features["cached"] is False and words in auto[0].features["why"]
    assert len(auto[2][1]) == 1 and words in auto[2][1][0] and "\n" not in auto[2][1][0]
    with pytest.raises(ConfigError, match="cache_features at auto") as caught:
        trained(featured("on", **options), trunk="train")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_last_digits_are_on_request_only(featured: Any) -> None:
    """A trunk whose rows depend on the length of the batch in their last digits, as on some GPUs."""

    def rounded(model: nn.Module) -> None:
        model.norm.register_forward_hook(lambda _module, _given, output: output * (1 + 1e-6 * len(output)))

    auto = trained(featured("auto", change=rounded))
    assert "last digits" in auto[0].features["why"]
    on = trained(featured("on", change=rounded))
    assert on[0].features["cached"] and on[0].features["exact"] is False
    for one, other in zip(auto[1], on[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_rows_that_train_the_trunk_are_left_alone(featured: Any) -> None:
    done, _, (_, notes) = trained(featured("on"), "core.lora", targets=["glob:*fc1"])
    assert done.features == {} and notes == []


def test_it_leaves_no_trace(featured: Any) -> None:
    task, train = featured(batch_norm=True), TrainConfig(**TRAIN)
    adapted = adapt(task)
    adapted.bind(torch.optim.AdamW(adapted.param_groups(lr=0.1)), total_steps=3)
    adapted.model.train()
    modes = [module.training for module in adapted.model.modules()]
    before, random = copy.deepcopy(adapted.model.state_dict()), random_state()
    made, facts = cache_features(adapted, task, train, Backend("cpu"))
    assert made is not None and facts["cached"]
    assert all(torch.equal(before[key], value) for key, value in adapted.model.state_dict().items())
    assert [module.training for module in adapted.model.modules()] == modes
    assert torch.equal(random["torch"], random_state()["torch"])
    assert not any(module._forward_hooks for module in adapted.model.modules())


@pytest.mark.parametrize("when", ["features", "middle of an epoch"])
def test_a_training_that_was_stopped_goes_on_to_the_same_result(
    featured: Any, tmp_path: Path, when: str
) -> None:
    whole = trained(featured("auto"))
    stop, adapted = Stop(), adapt(featured("auto"))
    stop.requested = when == "features"

    def on_step(step: int, metrics: dict[str, float]) -> None:
        stop.requested = stop.requested or step == 8

    with pytest.raises(Interrupted):
        fit(
            adapted,
            featured("auto"),
            TrainConfig(**TRAIN),
            checkpoint=Checkpoint(tmp_path / "here", 0.0),
            on_step=on_step,
            stop=stop,
        )
    again = adapt(featured("auto"))
    done = fit(again, featured("auto"), TrainConfig(**TRAIN), checkpoint=Checkpoint(tmp_path / "here", 0.0))
    assert done.features["cached"] and done.history == whole[0].history
    assert all(torch.equal(a, b) for a, b in zip(again.tensors().values(), whole[1], strict=True))
