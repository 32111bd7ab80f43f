"""The loss of a step: the task's, as the methods of the trained adapters shape it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import peftx
from peftx.adapters.methods.lora import LoRA
from peftx.config.run import TrainConfig
from peftx.errors import TrainingError
from peftx.runs.efficiency import saved_bytes
from peftx.training.accumulation import accumulate, training_loss
from peftx.training.backend import Backend
from peftx.training.engine import fit


class Twice(LoRA):
    """The loss of a second forward counts half, and so does the size of the outputs."""

    def loss(self, config: Any, run: Callable[[], tuple[Tensor, Any]]) -> Tensor:
        (first, _), (second, outputs) = run(), run()
        return first + 0.5 * second + 0.5 * outputs.square().mean()


def attached(toy: Any, method: Any = Twice, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    task = toy()
    adapted = peftx.attach(task.build_model(), method, **{"targets": ["fc1"], "dropout": 0.0} | options)
    return task, adapted


def batch_of(task: Any) -> dict[str, Tensor]:
    return next(iter(task.batches("train", 16)))  # type: ignore[no-any-return]


def test_a_method_has_its_say_and_the_others_none(toy: Any) -> None:
    task, adapted = attached(toy)
    model, batch = adapted.model.train(), batch_of(task)
    own, outputs = task.loss(model, batch), task.forward(model, batch)
    want = 1.5 * own + 0.5 * outputs.square().mean()
    assert adapted.shapes_loss
    torch.testing.assert_close(training_loss(task, model, model, batch), want)
    torch.testing.assert_close(adapted.loss(lambda: (task.loss(model, batch), model(batch["points"]))), want)
    assert not model._forward_hooks
    adapted.attach("core.lora", name="plain", targets=["fc1"], also_train=[]).activate("plain")
    assert not adapted.shapes_loss
    torch.testing.assert_close(training_loss(task, model, model, batch), own)
    adapted.detach()
    torch.testing.assert_close(training_loss(task, model, model, batch), own)


def test_two_methods_shape_it_one_after_the_other(toy: Any) -> None:
    class Doubled(LoRA):
        def loss(self, config: Any, run: Callable[[], tuple[Tensor, Any]]) -> Tensor:
            return 2 * run()[0]

    task, adapted = attached(toy)
    adapted.attach(Doubled, name="b", targets=["fc1"], also_train=[]).activate("default", "b")
    model, batch = adapted.model.train(), batch_of(task)
    own, outputs = task.loss(model, batch), task.forward(model, batch)
    want = 1.5 * own + 0.5 * outputs.square().mean()
    torch.testing.assert_close(training_loss(task, model, model, batch), 2 * want)
    adapted.train_only("b")
    torch.testing.assert_close(training_loss(task, model, model, batch), 2 * own)


def test_gradients_of_a_group_are_those_of_the_whole(toy: Any) -> None:
    task, adapted = attached(toy)
    model, batch = adapted.model.train(), batch_of(task)
    training_loss(task, model, model, batch).backward()
    want = [p.grad.clone() for p in adapted.parameters()]
    for parameter in adapted.parameters():
        parameter.grad = None
    halves = [{key: value[rows] for key, value in batch.items()} for rows in (slice(0, 8), slice(8, 16))]
    accumulate(model, model, task, halves, Backend())
    for parameter, grad in zip(adapted.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_a_run_minimises_it(toy: Any) -> None:
    sizes = {}
    for method in (LoRA, Twice):
        task, adapted = attached(toy, method)
        fit(adapted, task, TrainConfig(lr=0.05, epochs=6, batch_size=16))
        with torch.no_grad():
            sizes[method] = float(adapted.model(batch_of(task)["points"]).square().mean())
    assert sizes[Twice] < 0.8 * sizes[LoRA]


def test_what_is_kept_for_the_backward_counts_both_passes(toy: Any) -> None:
    kept = {}
    for method in (LoRA, Twice):
        task, adapted = attached(toy, method)
        kept[method] = saved_bytes(adapted.model, task, batch_of(task), Backend())
    assert kept[Twice] > 1.8 * kept[LoRA]


def test_a_failing_loss_leaves_no_hook(toy: Any) -> None:
    task, adapted = attached(toy)
    batch = batch_of(task) | {"labels": torch.zeros(3, dtype=torch.int64)}
    with pytest.raises(ValueError, match="batch"):
        training_loss(task, adapted.model, adapted.model, batch)
    assert not adapted.model._forward_hooks


def test_a_loss_that_calls_parts_of_the_model_is_refused_in_words(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, adapted = attached(toy)
    monkeypatch.setattr(type(task), "loss", lambda self, model, batch: model.fc1.weight.sum())
    with pytest.raises(TrainingError, match="call the model itself"):
        training_loss(task, adapted.model, adapted.model, batch_of(task))
