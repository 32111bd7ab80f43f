"""Lightning's Trainer drives schedules step by step, and goes on from its checkpoints to the same bits."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx.errors import AdapterError

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint  # noqa: E402
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402

from peftx.training.callbacks import LightningCallback  # noqa: E402


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.value(torch.tanh(self.query(x)))))


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


OWN = {"targets": ["query", "value"], "also_train": ["glob:head*"]}


class Module(lightning.LightningModule):
    def __init__(self, adapted: peftx.Adapted, make: Any = None, manual: bool = False) -> None:
        super().__init__()
        self.model, self.handle, self.make = adapted.model, adapted, make
        self.automatic_optimization = not manual
        self.poison = -1

    def configure_optimizers(self) -> Any:
        if self.make is not None:
            return self.make(self.handle)
        return torch.optim.AdamW(self.handle.param_groups(lr=0.05, weight_decay=0.1))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def training_step(self, batch: Any, index: int) -> Any:
        loss = self.loss(batch)
        if index == self.poison:
            loss = loss * torch.inf
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.loss(batch))


def data(size: int = 16, endless: bool = False) -> Any:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 6, generator=generator)
    whole = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    if not endless:
        return torch.utils.data.DataLoader(whole, batch_size=4)

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            while True:
                yield from whole

    return torch.utils.data.DataLoader(Endless(), batch_size=4)


def trainer(folder: Path, *callbacks: Any, library: Any = lightning, **settings: Any) -> Any:
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks),
        "default_root_dir": folder,
    }
    return library.Trainer(**{**defaults, **settings}, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 8),
        ({"accumulate_grad_batches": 4}, 2),
        # 4 batches in groups of 3: the second group of each epoch is short
        ({"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}, 4),
        ({"max_epochs": -1, "max_steps": 5}, 5),
        ({"limit_train_batches": 3, "precision": "bf16-mixed"}, 6),
        ({"fast_dev_run": True}, 1),
    ],
)
def test_the_schedule_sees_the_steps_of_the_optimizer(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any], settings: dict[str, Any], steps: int
) -> None:
    adapted = pruning.attach(net(), **OWN)
    run = trainer(tmp_path, LightningCallback(adapted), **settings)
    run.fit(Module(adapted), data(), data(8))
    schedule = pruning.running(adapted)
    assert schedule.total_steps == steps == run.global_step
    # its own assertions say that gradients were complete before every step
    assert schedule.events == steps_of(steps)
    for delta in schedule._gains().values():
        assert int((delta.g == 0).sum()) == 4, "half of the units are masked in the end"


def test_the_schedule_reads_the_gradients_of_its_own_step(tmp_path: Path, pruning: Any) -> None:
    """Lightning computes gradients inside the optimizer's step; a bare loop does before. Both give the same bits."""
    results = []
    for bare in (False, True):
        adapted = pruning.attach(net(), **OWN)
        module = Module(adapted)
        if bare:
            optimizer = module.configure_optimizers()
            adapted.bind(optimizer, total_steps=8)
            adapted.model.train()
            for _ in range(2):
                for batch in data():
                    optimizer.zero_grad()
                    module.loss(batch).backward()
                    optimizer.step()
        else:
            trainer(tmp_path, LightningCallback(adapted)).fit(module, data())
        results.append(pruning.values(adapted))
    assert pruning.equal(*results)


def test_without_the_callback_a_schedule_is_refused_in_our_own_words(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(net(), **OWN)
    with pytest.raises(AdapterError, match=r"adapted\.bind\(optimizer, total_steps=N\)"):
        trainer(tmp_path).fit(Module(adapted), data())


def test_head_and_adapter_are_trained_and_the_base_is_not(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(net(), **OWN)
    base, before = pruning.base(adapted.model), pruning.values(adapted)
    trainer(tmp_path, LightningCallback()).fit(Module(adapted), data(), data(8))
    after = pruning.values(adapted)
    assert all(not torch.equal(before[key], after[key]) for key in before)
    assert any("head" in key for key in after)
    adapted.detach()
    assert pruning.equal(dict(adapted.model.state_dict()), base)


@pytest.mark.parametrize("save_to", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, pruning: Any, save_to: bool
) -> None:
    def run(ckpt_path: Path | None = None) -> Any:
        adapted = pruning.attach(net(), **OWN)
        callback = LightningCallback(adapted, save_to=tmp_path / "adapters" if save_to else None)
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        settings = {"max_epochs": 4, "accumulate_grad_batches": 2}
        trainer(tmp_path, callback, keep, **settings).fit(Module(adapted), data(), ckpt_path=ckpt_path)
        return adapted

    whole = run()
    torch.manual_seed(99)
    again = run(tmp_path / "epoch=1.ckpt")
    assert pruning.equal(pruning.values(again), pruning.values(whole))
    assert pruning.running(again).events[0] == ("before", 5)
    ours, theirs = pruning.running(again).state_dict(), pruning.running(whole).state_dict()
    assert pruning.equal(ours["saliency"], theirs["saliency"]) and pruning.equal(ours["keep"], theirs["keep"])
    assert (ours["lowest"], ours["phase"]) == (theirs["lowest"], theirs["phase"])
    folder = tmp_path / "adapters"
    assert folder.exists() == save_to
    if save_to:
        assert {one.name for one in folder.iterdir()} == {"step-2", "step-4", "step-6", "step-8"}
        assert (folder / "step-8" / "default" / "adapter.safetensors").is_file()


def test_a_checkpoint_without_the_schedules_is_refused(tmp_path: Path, pruning: Any) -> None:
    adapted = peftx.attach(net(), "core.bitfit", targets=OWN["targets"], also_train=["glob:head*"])
    run = trainer(tmp_path, ModelCheckpoint(tmp_path, filename="{epoch}"), max_epochs=1)
    run.fit(Module(adapted), data())
    timed = pruning.attach(net(), **OWN)
    module = Module(timed)
    module.strict_loading = False
    with pytest.raises(AdapterError, match=r"from step 4.*written with LightningCallback"):
        trainer(tmp_path, LightningCallback(timed)).fit(module, data(), ckpt_path=tmp_path / "epoch=0.ckpt")


def _unknown(case: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    if case == "manual":
        return {}, {"manual": True}, data()
    if case == "endless":
        return {"limit_train_batches": 4, "max_epochs": -1, "max_time": "00:00:00:20"}, {}, data(endless=True)
    return {"callbacks": [GradientAccumulationScheduler({0: 1, 1: 2})]}, {}, data()


@pytest.mark.parametrize("case", ["manual", "endless", "changing accumulation"])
def test_a_length_that_cannot_be_known_is_asked_for(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any], case: str
) -> None:
    for total in (None, 6):
        settings, options, loader = _unknown(case)
        adapted = pruning.attach(net(), **OWN)
        callbacks = [LightningCallback(adapted, total_steps=total), *settings.pop("callbacks", [])]
        if total is not None and case == "endless":
            settings = {"limit_train_batches": 3}
        run = trainer(tmp_path, *callbacks, **settings)
        if total is None:
            with pytest.raises(AdapterError, match=r"LightningCallback\(adapted, total_steps=N\)"):
                run.fit(Module(adapted, **options), loader)
        else:
            run.fit(Module(adapted, **options), loader)
            taken = {"manual": 8, "endless": 6, "changing accumulation": 6}[case]
            assert pruning.running(adapted).events == steps_of(taken)


def test_without_a_schedule_no_length_is_needed(tmp_path: Path) -> None:
    adapted = peftx.attach(net(), "core.bitfit", targets=OWN["targets"], also_train=["glob:head*"])
    run = trainer(tmp_path, LightningCallback(adapted))
    run.fit(Module(adapted, manual=True), data())
    assert run.global_step == 8
    assert adapted.schedule_state() == {}


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_none(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any], fused: bool
) -> None:
    adapted = pruning.attach(net(), **OWN)
    module = Module(adapted, lambda handle: torch.optim.AdamW(handle.parameters(), 0.05, fused=fused))
    module.poison = 2
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    run = trainer(tmp_path, LightningCallback(adapted), plugins=[plugin], max_epochs=1)
    run.fit(module, data())
    assert scaler.get_scale() == 2.0**7
    assert pruning.running(adapted).events == steps_of(3)
    assert all(torch.isfinite(value).all() for value in pruning.values(adapted).values())


def test_evaluation_is_no_step_and_the_best_model_is_lightnings(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any]
) -> None:
    adapted = pruning.attach(net(), **OWN)
    best = ModelCheckpoint(tmp_path, monitor="val_loss", filename="{epoch}", save_top_k=1)
    seen: dict[int, Any] = {}

    class Look(lightning.Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.sanity_checking:
                seen[trainer.current_epoch] = (
                    pruning.values(adapted),
                    float(trainer.callback_metrics["val_loss"]),
                )

    run = trainer(tmp_path, LightningCallback(adapted), best, Look(), max_epochs=4)
    run.fit(Module(adapted), data(), data(8))
    assert pruning.running(adapted).events == steps_of(16)
    epoch = min(seen, key=lambda epoch: seen[epoch][1])
    assert Path(best.best_model_path).name == f"epoch={epoch}.ckpt"
    run.validate(Module(adapted), data(8), ckpt_path="best", verbose=False)
    assert pruning.equal(pruning.values(adapted), seen[epoch][0])


def test_several_optimizers_and_several_adapters(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any]
) -> None:
    adapted = pruning.attach(net(), name="a", targets=["query"], also_train=["glob:head*"])
    adapted.attach(pruning.method, name="b", targets=["value"], also_train=[]).activate("a", "b")
    other = nn.Parameter(torch.ones(1))

    class Two(Module):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([other], 0.1), torch.optim.SGD(adapted.parameters(), 0.1)]

        def training_step(self, batch: Any, index: int) -> None:
            first, second = self.optimizers()
            self.manual_backward(self.loss(batch) * other)
            for optimizer in (first, second):
                optimizer.step()
                optimizer.zero_grad()

    module = Two(adapted, manual=True)
    trainer(tmp_path, LightningCallback(adapted, total_steps=8)).fit(module, data())
    for name in ("a", "b"):
        assert pruning.running(adapted, name).events == steps_of(8)
    apart = pruning.attach(net(), **OWN)

    class Split(Two):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([p], 0.1) for p in list(apart.parameters())[:2]]

    with pytest.raises(AdapterError, match="the optimizer lacks"):
        trainer(tmp_path, LightningCallback(apart, total_steps=8)).fit(Split(apart, manual=True), data())


def test_a_closure_that_is_called_often_is_one_step(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any]
) -> None:
    class Idle(type(pruning.method().schedule(None))):  # what is pruned is no matter for L-BFGS
        def before_step(self, step: int) -> None:
            self.events.append(("before", step))

        def after_step(self, step: int) -> None:
            self.events.append(("after", step))

    class Timed(pruning.method):
        def schedule(self, config: Any) -> Any:
            return Idle()

    adapted = peftx.attach(net(), Timed, **OWN)
    calls: list[int] = []

    class Counted(Module):
        def loss(self, batch: Any) -> Tensor:
            calls.append(1)
            return super().loss(batch)

    module = Counted(adapted, lambda handle: torch.optim.LBFGS(handle.parameters(), max_iter=4))
    trainer(tmp_path, LightningCallback(adapted), max_epochs=1).fit(module, data())
    assert len(calls) > 4
    assert pruning.running(adapted).events == steps_of(4)


def test_the_other_package_takes_the_callback_as_well(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any]
) -> None:
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    adapted = pruning.attach(net(), **OWN)

    class Own(other.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = adapted.model

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(adapted.parameters(), 0.1)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    trainer(tmp_path, LightningCallback(adapted), library=other).fit(Own(), data())
    assert pruning.running(adapted).events == steps_of(8)
