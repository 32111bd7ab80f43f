"""A training that was stopped and goes on is the one that was not, to the last bit."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from peftx.adapters import Adapted, AdapterMethod, Delta, Schedule, Site, attach
from peftx.config.adapter import AdapterConfig
from peftx.config.run import TrainConfig
from peftx.errors import ArtifactError, Interrupted, TrainingError
from peftx.training import Backend, Fit, fit, seed_all
from peftx.training.checkpoint import Checkpoint
from peftx.training.engine import Training
from peftx.training.stopping import Stop


class GrowConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:*fc1"])


class Growing(Delta):
    """W + B A, of a rank that grows by one every other step, to a row drawn at random."""

    elastic: ClassVar[tuple[str, ...]] = ("A", "B")

    def __init__(self, site: Site, config: GrowConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.A = nn.Parameter(torch.randn(1, site.shape[1]))
        self.B = nn.Parameter(torch.zeros(site.shape[0], 1))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.B @ self.A, bias

    @staticmethod
    def param_count(site: Site, config: GrowConfig) -> int:
        return sum(site.shape)


class Grow(Schedule):
    def after_step(self, step: int) -> None:
        if step % 2 or step > self.total_steps / 2:
            return
        for delta in self.deltas.values():
            A, B = delta.get_parameter("A"), delta.get_parameter("B")
            take = torch.tensor([*range(len(A)), -1])
            self.store.replace(A, torch.cat((A, torch.randn(1, A.shape[1]))), take=take)
            self.store.replace(B, torch.cat((B, torch.zeros(len(B), 1)), 1), take=take, dim=1)

    @property
    def settled(self) -> bool:
        return self.step >= self.total_steps / 2


class GrowMethod(AdapterMethod):
    Config = GrowConfig
    Delta = Growing
    kinds = ("linear",)

    def schedule(self, config: Any) -> Schedule:
        return Grow()


FC1 = {"targets": ["glob:*fc1"]}
CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "dropout": {"options": {**FC1, "dropout": 0.3}},
    "head": {"method": "core.head", "options": {}},
    "full": {"method": "core.full", "options": {}, "net": {"batch_norm": True}},
    "dora": {"method": "core.dora"},
    "accumulated": {"train": {"accumulate": 4, "batch_size": 8}},
    "clipped": {"train": {"clip": 0.1, "head_lr": 1e-2}},
    "average": {"train": {"ema": 0.9}},
    "patient": {
        "train": {"patience": 2, "lr": 0.2, "schedule": "constant", "epochs": 10},
        "net": {"spread": 3.0},
    },
    "bf16": {"precision": "bf16"},
    "one batch": {"train": {"batch_size": 90}},
    "no validation": {"without_val": True},
    "augmented": {"augmented": True, "train": {"accumulate": 2}},
    "growing": {"method": GrowMethod, "options": {}, "train": {"ema": 0.9}},
    "snella": {"method": "vision.snella", "options": {**FC1, "rank": 4}},
}


class Jittered:
    """Batches with noise from the global generators, as other people's data sets draw it."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.batches:
            noise = torch.randn_like(batch["points"]) * random.random() * np.random.rand()
            yield {**batch, "points": batch["points"] + noise}


class Run:
    """One case's training, as many processes of it as it takes, and what it left."""

    def __init__(self, toy: Callable[..., Any], case: str, folder: Path) -> None:
        if case == "snella":
            pytest.importorskip("peftx_vision", reason="SNELLA is the vision pack's")
        self.case, self.toy, self.folder = CASES[case], toy, folder
        self.lines: list[str] = []
        self.notes: list[dict[str, Any]] = []

    def start(self, stop_at: str = "", stop: Stop | None = None) -> tuple[Adapted, Fit]:
        """Train, or go on; `stop_at`: ``step 7``, ``epoch 2``, ``scoring 3`` ask for a stop there."""
        task = self.toy(**self.case.get("net", {}))
        if self.case.get("without_val"):
            del task.data.splits["val"]
        if self.case.get("augmented"):
            batches = task.batches
            task.batches = lambda split, size, *, train=False, generator=None: (
                Jittered(batches(split, size, train=train, generator=generator))
                if train
                else batches(split, size)
            )
        seed_all(0, "model")
        model = task.build_model()
        seed_all(0, "adapter")
        options = self.case.get("options", FC1)
        adapted = attach(model, self.case.get("method", "core.lora"), **options)
        wish = stop or Stop()
        scored = 0
        evaluate = task.evaluate

        def scoring(*arguments: Any, **named: Any) -> Any:
            nonlocal scored
            scored += 1
            wish.requested |= stop_at == f"scoring {scored}"
            return evaluate(*arguments, **named)

        task.evaluate = scoring

        def heard(kind: str, number: int, values: dict[str, float]) -> None:
            self.lines.append(json.dumps({kind: number, **values}))
            wish.requested |= stop_at == f"{kind} {number}"

        def resumed(extra: Any) -> None:
            self.lines = self.lines[: extra["lines"]]

        settings = {"lr": 3e-2, "epochs": 5, "batch_size": 16, "checkpoint": 0, **self.case.get("train", {})}
        done = fit(
            adapted,
            task,
            TrainConfig(**settings),
            seed=3,
            backend=Backend("cpu", self.case.get("precision", "fp32")),
            on_step=lambda step, values: heard("step", step, values),
            on_epoch=lambda epoch, values: heard("epoch", epoch, values),
            checkpoint=Checkpoint(self.folder, settings["checkpoint"]),
            extra=lambda: {"lines": len(self.lines)},
            resumed=resumed,
            stop=wish,
        )
        return adapted, done

    def stopped(self, stop_at: str) -> None:
        with pytest.raises(Interrupted, match="stopped after step"):
            self.start(stop_at)

    def state(self) -> str:
        """Hash of everything the last checkpoint holds, the time aside."""
        state = json.loads((self.folder / "state.json").read_text())
        pairs = [pair for pair in state["state"]["dict"] if pair[0] != "seconds"]
        return hashlib.sha256(json.dumps([pairs, state["sha256"]]).encode()).hexdigest()


def same(one: Run, got: tuple[Adapted, Fit], other: Run, wanted: tuple[Adapted, Fit]) -> None:
    theirs = dict(wanted[0].named_parameters())
    assert {name: p.shape for name, p in got[0].named_parameters()} == {n: p.shape for n, p in theirs.items()}
    for name, parameter in got[0].named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    for (name, mine), (_, buffer) in zip(
        got[0].model.named_buffers(), wanted[0].model.named_buffers(), strict=True
    ):
        assert torch.equal(mine, buffer), name
    assert one.lines == other.lines  # none doubled, none lost
    for field in (
        "steps",
        "epochs",
        "best_epoch",
        "train_loss",
        "history",
        "stopped_early",
        "optimizer_bytes",
    ):
        assert getattr(got[1], field) == getattr(wanted[1], field), field
    assert one.state() == other.state()  # optimizer, schedules, generators, averages


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_kind_of_place(toy: Callable[..., Any], case: str, tmp_path: Path) -> None:
    whole, parts = Run(toy, case, tmp_path / "whole"), Run(toy, case, tmp_path / "parts")
    wanted = whole.start()
    epochs = wanted[1].epochs
    per_epoch = wanted[1].steps // epochs
    places = ["step 1", f"step {per_epoch}", f"step {per_epoch + 1}", "epoch 2"]
    if not whole.case.get("without_val"):
        places.append("scoring 1")
    if per_epoch == 1:
        places = ["step 1", "step 3", "epoch 4", "scoring 1"]
    for place in places:
        parts.stopped(place)
    same(parts, parts.start(), whole, wanted)


def test_stopped_after_every_single_step(toy: Callable[..., Any], tmp_path: Path) -> None:
    whole, parts = Run(toy, "dropout", tmp_path / "whole"), Run(toy, "dropout", tmp_path / "parts")
    wanted = whole.start()
    for step in range(1, wanted[1].steps):
        parts.stopped(f"step {step}")
    same(parts, parts.start(), whole, wanted)


@pytest.mark.parametrize("case", ["lora", "average"])
def test_a_training_that_came_to_its_end_is_found_there(
    toy: Callable[..., Any], case: str, tmp_path: Path
) -> None:
    run = Run(toy, case, tmp_path)
    first = run.start()
    lines = list(run.lines)
    again = run.start()
    assert run.lines == lines and again[1].steps == first[1].steps
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), again[0].parameters(), strict=True))
    assert again[1].seconds >= first[1].seconds


def test_seconds_add_up_over_processes(toy: Callable[..., Any], tmp_path: Path) -> None:
    run = Run(toy, "lora", tmp_path)
    run.stopped("step 3")
    before = {key: value for key, value in Checkpoint(tmp_path, 0).read().items() if key == "seconds"}  # type: ignore[union-attr]
    assert run.start()[1].seconds > before["seconds"] > 0


def test_a_stop_without_a_checkpoint_only_stops(toy: Callable[..., Any]) -> None:
    task, stop = toy(), Stop()
    adapted = attach(task.build_model(), "core.lora", **FC1)
    stop.requested = True
    with pytest.raises(Interrupted, match="stopped after step 1 of 12"):
        fit(adapted, task, TrainConfig(lr=1e-2, epochs=2, batch_size=16), stop=stop, backend=Backend("cpu"))


def test_a_checkpoint_of_another_adapter_or_length_is_refused(
    toy: Callable[..., Any], tmp_path: Path
) -> None:
    run = Run(toy, "lora", tmp_path)
    run.stopped("step 3")
    for case, words in (
        ({"options": {**FC1, "rank": 4}}, "another adapter: .* has shape"),
        ({"method": "core.head", "options": {}}, "another adapter: .* is not in both"),
        ({"train": {"epochs": 6}}, "a training of 30 steps, this one has 36"),
    ):
        run.case = case
        with pytest.raises(ArtifactError, match=words):
            run.start()


def test_values_that_are_no_numbers_are_never_written(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss with an infinite gradient poisons the values; the checkpoint before it stays."""
    run = Run(toy, "lora", tmp_path)
    step = torch.optim.AdamW.step
    count = 0

    def poisoned(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        done = step(self, *arguments, **named)
        if count == 4:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.inf)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", poisoned)
    with pytest.raises(
        TrainingError, match=r"after step 4 the trained tensor .* holds NaN or infinite values"
    ):
        run.start()
    state = Checkpoint(tmp_path, 0).read()
    assert state is not None and state["steps"] == 3


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    toy: Callable[..., Any], tmp_path: Path
) -> None:
    task = toy(explode_at=5)
    adapted = attach(task.build_model(), "core.lora", **FC1)
    with pytest.raises(TrainingError, match=r"at step 5 of 6 .* the last good checkpoint is that of step 4"):
        fit(
            adapted,
            task,
            TrainConfig(lr=1e-2, epochs=1, batch_size=16),
            backend=Backend("cpu"),
            checkpoint=Checkpoint(tmp_path, 0),
        )


def test_a_rare_checkpoint_costs_nothing_between(toy: Callable[..., Any], tmp_path: Path) -> None:
    task = toy()
    written = []
    checkpoint = Checkpoint(tmp_path, 3600)
    write = checkpoint.write
    checkpoint.write = lambda state, step: (written.append(step), write(state, step))[1]  # type: ignore[method-assign]
    adapted = attach(task.build_model(), "core.lora", **FC1)
    training = Training(
        adapted,
        task,
        TrainConfig(lr=1e-2, epochs=2, batch_size=16),
        backend=Backend("cpu"),
        checkpoint=checkpoint,
    )
    assert training.run().steps == 12
    assert written == [12]  # only the end, so that scoring may be stopped
