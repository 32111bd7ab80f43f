"""The one way scores are taken, and the details that travel with them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

from peftx.evaluation import ClassificationMeter, evaluate
from peftx.tasks import DetailedMeter, ModelSource, Scores, Task


class Echo(Task):
    """Inputs are the logits."""

    primary = "accuracy"

    def __init__(self) -> None:
        super().__init__(None, None, ModelSource("echo"), None)  # type: ignore[arg-type]

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 2).requires_grad_(True))

    def batches(self, split: str, batch_size: int, *, train: bool = False, generator: Any = None) -> Any:
        inputs = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
        return [
            {"x": inputs[:2], "labels": torch.tensor([0, 1])},
            {"x": inputs[2:], "labels": torch.tensor([1])},
        ]

    def forward(self, model: nn.Module, batch: Any) -> Any:
        assert not torch.is_grad_enabled()
        assert not model.training
        return model(batch["x"])

    def loss(self, model: nn.Module, batch: Any) -> Any:
        raise NotImplementedError

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter(2)


def identity() -> nn.Module:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
        model[1].bias.zero_()
    return model


def test_dropout_is_off_and_the_counts_are_exact() -> None:
    scores = evaluate(Echo(), identity().train(), "test", 2)
    assert (scores["n"], scores["correct"]) == (3, 2)


def test_each_module_keeps_its_own_mode() -> None:
    model = identity().train()
    model[0].eval()
    evaluate(Echo(), model, "test", 2)
    assert [m.training for m in model.modules()] == [True, False, True]


def test_the_mode_comes_back_after_an_error() -> None:
    class Broken(Echo):
        def forward(self, model: nn.Module, batch: Any) -> Any:
            raise RuntimeError("no")

    model = identity().train()
    with pytest.raises(RuntimeError, match="no"):
        evaluate(Broken(), model, "test", 2)
    assert model.training


def test_the_bar_moves_once_per_batch() -> None:
    class Bar:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def begin(self, label: str, total: int) -> None:
            self.heard.append(f"{label} {total}")

        def advance(self) -> None:
            self.heard.append("+")

        def end(self) -> None:
            self.heard.append("end")

    bar = Bar()
    evaluate(Echo(), identity(), "val", 2, progress=bar)
    assert bar.heard == ["evaluate val 2", "+", "+", "end"]


def test_splits_come_in_a_fixed_order() -> None:
    class Data:
        splits = dict.fromkeys(("test", "val", "train"))

    task = Echo()
    task.data = Data()  # type: ignore[assignment]
    assert task.splits() == ["train", "val", "test"]


def test_the_details_of_the_meter_come_with_the_scores() -> None:
    scores = evaluate(Echo(), identity(), "test", 2)
    assert isinstance(scores, Scores)
    assert scores.details["n"] == 3
    assert scores.details["confusion"] == [[1, 0], [1, 1]]
    assert scores.keys() >= {"accuracy", "loss", "ece", "mce", "ace", "brier"}


class Counter:
    """A meter with the two mandatory methods alone."""

    def __init__(self) -> None:
        self.n = 0

    def update(self, outputs: Any, batch: Any) -> None:
        self.n += len(outputs)

    def compute(self) -> dict[str, float]:
        return {"n": self.n}


def test_a_meter_without_details_has_none() -> None:
    class Counting(Echo):
        def meter(self) -> Any:
            return Counter()

    scores = evaluate(Counting(), identity(), "test", 2)
    assert scores == {"n": 3}
    assert scores.details == {}
    assert isinstance(ClassificationMeter(2), DetailedMeter) and not isinstance(Counter(), DetailedMeter)


def test_a_task_of_its_own_may_return_a_plain_dict() -> None:
    class Plain(Echo):
        def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
            return dict(super().evaluate(*arguments, **options)) | {"extra": 1.0}

    scores = evaluate(Plain(), identity(), "test", 2)
    assert (scores["correct"], scores["extra"], scores.details) == (2, 1.0, {})


def test_a_task_of_its_own_may_bring_details() -> None:
    class Own(Echo):
        def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
            return Scores({"accuracy": 1.0}, {"by_class": [1, 2]})

    assert evaluate(Own(), identity(), "test", 2).details == {"by_class": [1, 2]}


def test_scores_are_a_dict_that_keeps_its_details_when_copied() -> None:
    details = {"n": 2}
    scores = Scores({"accuracy": 50.0}, details)
    assert scores == {"accuracy": 50.0} and json.dumps(scores) == '{"accuracy": 50.0}'
    assert Scores([("accuracy", 50.0)]) == scores and Scores().details == {}
    for other in (copy.copy(scores), copy.deepcopy(scores)):
        assert isinstance(other, Scores)
        assert (other, other.details) == (scores, details)
    details["n"] = 3
    assert scores.details == {"n": 2}
