"""Tasks and models with one fault each, and sound ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from kit_toys_task_config import MODEL_FAULTS, TASK_FAULTS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from peftx.evaluation import ClassificationMeter
from peftx.tasks import Task


class Block(nn.Module):
    def __init__(self, width: int, names: tuple[str, str]) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Linear(width, 2 * width))
        self.add_module(names[1], nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        up, down = (self.get_submodule(name) for name in self.names)
        return x + down(up(x).tanh())


class Net(nn.Module):
    def __init__(self, outputs: int, width: int, fault: str = "") -> None:
        super().__init__()
        names = ("apple", "pear") if fault == "roles" else ("fc1", "fc2")
        self.stem = nn.Linear(8, width)
        self.mlp = Block(width, names)
        self.head = nn.Linear(width, outputs + (fault == "head"))
        self.peftx_head = "head"

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mlp(self.stem(x)))


_one: list[nn.Module] = []


def _net(config: Any, outputs: int | None, fault: str = "") -> nn.Module:
    if fault == "built":
        if not _one:
            _one.append(Net(outputs or 2, config.width))
        return _one[0]
    return Net(outputs or 2, config.width, fault)


net = _net
for _fault in MODEL_FAULTS:
    globals()[f"net_{_fault}"] = partial(_net, fault=_fault)


class Batches:
    def __init__(self, split: Any, size: int, generator: Any, fault: str) -> None:
        self.split, self.size, self.generator, self.fault = split, size, generator, fault

    def _order(self) -> list[Tensor]:
        count = len(self.split)
        order = torch.arange(count)
        if self.generator is not None:
            order = torch.randperm(count, generator=self.generator)
            if self.fault == "covers_order":
                order = order[torch.zeros(count, dtype=torch.int64)]
        found = list(order.split(self.size))
        return found[:-1] if self.fault == "covers" and len(found) > 1 else found

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for rows in self._order():
            samples = [self.split[int(row)] for row in rows]
            yield {
                "points": torch.tensor([point for point, _ in samples]),
                "labels": torch.tensor([label for _, label in samples]),
            }


class BatchMean:
    """An accuracy that is the mean of the batches' accuracies."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.n = 0

    def update(self, outputs: Tensor, batch: dict[str, Tensor]) -> None:
        self.found.append(
            float((outputs.argmax(1) == batch["labels"]).float().mean()) + 0.01 * len(self.found)
        )
        self.n += len(outputs)

    def compute(self) -> dict[str, float]:
        return {"accuracy": sum(self.found) / len(self.found), "n": self.n}


class Sorting(Task):
    primary = "accuracy"
    units = {"accuracy": "%"}  # noqa: RUF012
    fault = ""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.held: list[nn.Module] = []

    def build_model(self) -> nn.Module:
        assert self.model.build is not None
        model = self.model.build(len(self.data.classes))
        if self.fault == "build":
            with torch.no_grad():
                model.stem.bias.add_(
                    torch.rand((), generator=torch.Generator().manual_seed(id(model) % 99991))
                )
        if self.fault == "keeps_no_model":
            self.held.append(model)
        return model

    def batches(self, split: str, batch_size: int, *, train: bool = False, generator: Any = None) -> Batches:
        return Batches(self.data.splits[split], batch_size, generator if train else None, self.fault)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["points"])

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        how = "sum" if self.fault == "loss_sum" else "mean"
        found = cross_entropy(self.forward(model, batch), batch["labels"], reduction=how)
        return found * float("nan") if self.fault == "loss" else found

    def meter(self) -> Any:
        if self.fault == "meter":
            return BatchMean()
        return ClassificationMeter(len(self.data.classes))

    def recipe(self, method: str) -> dict[str, Any]:
        return {"learning": "fast"} if self.fault == "recipes" else {"lr": 1e-2}

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        found = super().evaluate(*arguments, **options)
        return {
            key: value for key, value in found.items() if not (self.fault == "metrics" and key == "accuracy")
        }


for _fault in TASK_FAULTS:
    # what is to select on validation is measured nowhere
    _selects = {"selects": "residual"} if _fault == "metrics_selects" else {}
    globals()[f"Sorting_{_fault}"] = type("Sorting", (Sorting,), {"fault": _fault, **_selects})
