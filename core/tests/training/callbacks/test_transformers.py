"""The Hugging Face Trainer drives schedules step by step, and goes on from its checkpoints to the same bits."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import peftx
from peftx.artifacts import state
from peftx.errors import AdapterError, ArtifactError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from peftx.training.callbacks import TransformersCallback  # noqa: E402


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    gc.freeze()  # every training collects garbage, among all the objects of the libraries
    yield
    gc.unfreeze()


class Sentences(torch.utils.data.Dataset):
    """Sixteen-odd sentences of synthetic tokens; the label is which half of the vocabulary is the more frequent."""

    def __init__(self, size: int = 16) -> None:
        self.ids = torch.randint(0, 20, (size, 5), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index]
        return {"input_ids": ids, "labels": int((ids < 10).sum() > 2)}


def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        vocab_size=20,
        max_position_embeddings=8,
        num_labels=2,
    )
    return transformers.BertForSequenceClassification(config)


def trainer(model: Any, folder: Path, callback: Any = None, data: Any = None, **settings: Any) -> Any:
    defaults = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 0.05,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "use_cpu": True,
        "seed": 7,
    }
    given = {key: settings.pop(key) for key in ("optimizers", "eval_dataset") if key in settings}
    arguments = transformers.TrainingArguments(str(folder), **{**defaults, **settings})
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=data or Sentences(),
        callbacks=[] if callback is None else [callback],
        **given,
    )


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 8),
        ({"gradient_accumulation_steps": 4}, 2),
        # 4 batches in groups of 3: the second group of each epoch is short
        ({"gradient_accumulation_steps": 3}, 4),
        ({"max_steps": 5}, 5),
        ({"max_steps": 3, "gradient_accumulation_steps": 3}, 3),
        ({"num_train_epochs": 0.5}, 2),
        ({"optim": "sgd", "lr_scheduler_type": "cosine", "warmup_steps": 2}, 8),
    ],
)
def test_the_schedule_sees_the_steps_of_the_optimizer(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any], settings: dict[str, Any], steps: int
) -> None:
    adapted = pruning.attach(bert())
    run = trainer(adapted.model, tmp_path, TransformersCallback(adapted), **settings)
    assert run.train().global_step == steps
    schedule = pruning.running(adapted)
    assert schedule.total_steps == steps
    assert schedule.events == steps_of(steps)
    assert adapted.settled
    for delta in schedule._gains().values():
        assert int((delta.g == 0).sum()) == 4, "half of the units are masked in the end"
    # on the real optimizer, and not on what the Trainer wraps around it
    assert schedule.store.optimizer is run.optimizer.optimizer


def test_without_the_callback_a_schedule_is_refused_in_our_own_words(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(bert())
    with pytest.raises(AdapterError, match=r"adapted\.bind\(optimizer, total_steps=N\)"):
        trainer(adapted.model, tmp_path).train()


@pytest.mark.parametrize("own", [False, True])
def test_head_and_adapter_are_trained_and_the_base_is_not(tmp_path: Path, pruning: Any, own: bool) -> None:
    adapted = pruning.attach(bert())
    base, before = pruning.base(adapted.model), pruning.values(adapted)
    settings: dict[str, Any] = {"weight_decay": 0.1}
    if own:
        groups = adapted.param_groups(lr=0.05, head_lr=0.01, weight_decay=0.1)
        settings["optimizers"] = (torch.optim.AdamW(groups), None)
    run = trainer(adapted.model, tmp_path, TransformersCallback(), **settings)
    run.train()
    after = pruning.values(adapted)
    assert all(not torch.equal(before[key], after[key]) for key in before)
    assert any("classifier" in key for key in after)
    assert pruning.equal(pruning.base(adapted.model), base)
    held = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in adapted.parameters()}
    decayed = [p for g in run.optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert decayed, "the matrix of the head is decayed, whoever made the optimizer"
    adapted.detach()
    assert pruning.equal(dict(adapted.model.state_dict()), base)


def test_an_optimizer_of_other_parameters_is_refused(tmp_path: Path) -> None:
    adapted = peftx.attach(bert(), "core.lora", rank=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    run = trainer(adapted.model, tmp_path, TransformersCallback(adapted), optimizers=(optimizer, None))
    with pytest.raises(AdapterError, match="the optimizer lacks"):
        run.train()


def test_the_callback_finds_the_one_adapted_model(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"holds no adapted models; call peftx\.attach"):
        trainer(bert(), tmp_path, TransformersCallback()).train()


RESUME = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 4}


@pytest.mark.parametrize(("step", "optim"), [(4, "sgd"), (5, "adamw_torch")])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, pruning: Any, step: int, optim: str
) -> None:
    settings = {
        **RESUME,
        "optim": optim,
        "save_steps": step,
    }  # 2 steps an epoch: 4 is the end of one, 5 is not
    whole = pruning.attach(bert())
    trainer(whole.model, tmp_path, TransformersCallback(whole), **settings).train()
    torch.manual_seed(99)
    again = pruning.attach(bert())
    run = trainer(again.model, tmp_path, TransformersCallback(again), **settings)
    assert run.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}")).global_step == 8
    assert pruning.equal(pruning.values(again), pruning.values(whole))
    assert pruning.running(again).events[0] == ("before", step + 1)
    ours, theirs = pruning.running(again).state_dict(), pruning.running(whole).state_dict()
    assert pruning.equal(ours["saliency"], theirs["saliency"]) and pruning.equal(ours["keep"], theirs["keep"])
    assert (ours["lowest"], ours["phase"]) == (theirs["lowest"], theirs["phase"])


def test_a_checkpoint_holds_the_adapter_alone(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(bert())
    trainer(adapted.model, tmp_path, TransformersCallback(adapted), **RESUME).train()
    folder = tmp_path / "checkpoint-8"
    assert {file.name for file in (folder / "peftx").iterdir()} == {
        "default",
        "state.json",
        "state.safetensors",
    }
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]
    fresh = bert()
    manifest = folder / "peftx" / "default" / "adapter.json"
    # a class is found by its method's name: this one is of no plugin
    data = json.loads(manifest.read_text())
    assert data["method"].endswith(":Pruned")
    lora = peftx.attach(fresh, "core.lora", rank=2)
    trainer(fresh, tmp_path / "b", TransformersCallback(), **{**RESUME, "max_steps": 2}).train()
    loaded = peftx.artifacts.load(bert(), tmp_path / "b" / "checkpoint-2" / "peftx" / "default")
    assert pruning.equal(pruning.values(loaded), pruning.values(lora))


def test_the_adapter_is_left_out_on_request_and_the_state_is_not(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(bert())
    callback = TransformersCallback(adapted, save_adapter=False)
    trainer(adapted.model, tmp_path, callback, **{**RESUME, "max_steps": 2}).train()
    assert {file.name for file in (tmp_path / "checkpoint-2" / "peftx").iterdir()} == {
        "state.json",
        "state.safetensors",
    }


def test_old_checkpoints_go_with_what_is_ours(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(bert())
    settings = {**RESUME, "save_total_limit": 1}
    trainer(adapted.model, tmp_path, TransformersCallback(adapted), **settings).train()
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-8"]
    assert (tmp_path / "checkpoint-8" / "peftx" / "state.json").is_file()


def test_a_state_is_looked_for_and_taken_only_if_it_fits(tmp_path: Path, pruning: Any) -> None:
    def run(folder: Path, source: Path | None = None, **options: Any) -> Any:
        adapted = pruning.attach(bert())
        callback = TransformersCallback(adapted, **options)
        job = trainer(adapted.model, folder, callback, **RESUME)
        job.train(resume_from_checkpoint=None if source is None else str(source))
        return pruning.values(adapted)

    first = run(tmp_path / "a")
    here = tmp_path / "a" / "checkpoint-4"
    with pytest.raises(AdapterError, match=r"from step 4.*there is none in .*resume_from=\.\.\."):
        run(tmp_path / "b", here)
    assert pruning.equal(run(tmp_path / "b", here, resume_from=here), first)
    # another training's checkpoint of the same step lies where ours is looked for
    other = pruning.attach(bert())
    job = trainer(other.model, tmp_path / "c", TransformersCallback(other), **{**RESUME, "seed": 8})
    job.train()
    with pytest.raises(AdapterError, match="is of another training"):
        run(tmp_path / "c", here)
    (here / "peftx" / "state.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no file"):
        run(tmp_path / "a", here)


def test_a_training_of_another_length_is_refused(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(bert())
    trainer(adapted.model, tmp_path, TransformersCallback(adapted), **RESUME).train()
    again = pruning.attach(bert())
    run = trainer(again.model, tmp_path, TransformersCallback(again), **{**RESUME, "num_train_epochs": 6})
    with pytest.raises(AdapterError, match="training of 8 steps, this one has 12"):
        run.train(resume_from_checkpoint=True)


class Images(Sentences):
    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 8, 8, generator=generator), "labels": index % 2}


def vit() -> Any:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=8,
        patch_size=4,
    )
    return transformers.ViTForImageClassification(config)


def test_a_model_that_has_other_names_in_files_is_restored(tmp_path: Path, pruning: Any) -> None:
    """Of such a model the Trainer restores no weight, when it resumes and when it puts the best back."""
    settings = {
        **RESUME,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "greater_is_better": True,  # the worst loss: not the last step's
        "learning_rate": 1.0,
    }
    results = []
    for resume in (False, True):
        model = vit()
        torch.manual_seed(1 + resume)
        adapted = peftx.attach(model, "core.lora", rank=2, name="plain")
        targets = [
            key for key, _ in model.named_modules() if key.endswith("mlp.fc1") or "intermediate" in key
        ]
        adapted.attach(pruning.method, name="pruned", targets=targets[:1], also_train=[])
        adapted.activate("plain", "pruned")
        run = trainer(model, tmp_path, TransformersCallback(), Images(), eval_dataset=Images(4), **settings)
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4") if resume else None)
        results.append(pruning.values(adapted))
        best = run.state.best_model_checkpoint
        kept = state.load_state(Path(best) / "peftx")["adapters"]
        assert all(
            torch.equal(kept[n][s][k], v) for n in adapted.names for (s, k), v in adapted.tensors(n).items()
        )
    assert pruning.equal(*results)
    assert Path(best).name != "checkpoint-8", "otherwise this shows nothing of the best model"


def test_a_training_of_other_adapters_is_refused(tmp_path: Path, pruning: Any) -> None:
    adapted = pruning.attach(bert())
    settings = {**RESUME, "max_steps": 2}
    trainer(adapted.model, tmp_path, TransformersCallback(adapted), **settings).train()
    other = pruning.attach(bert(), name="other")
    callback = TransformersCallback(other, resume_from=tmp_path / "checkpoint-2")
    run = trainer(other.model, tmp_path, callback, **{**settings, "max_steps": 4})
    with pytest.raises(AdapterError, match="other adapters than it began with: default"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_methods_without_a_schedule_resume_as_well(tmp_path: Path, pruning: Any) -> None:
    results = []
    for resume in (False, True):
        torch.manual_seed(3)
        adapted = peftx.attach(bert(), "core.lora", rank=2)
        job = trainer(adapted.model, tmp_path, TransformersCallback(adapted), **RESUME)
        job.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2") if resume else None)
        results.append(pruning.values(adapted))
    assert pruning.equal(*results)


def test_evaluation_is_no_step_and_the_best_model_comes_back(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any]
) -> None:
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "learning_rate": 1.0,
    }
    losses = []
    for callback in (True, False):
        # the same method without its schedule is the Trainer on its own
        adapted = pruning.attach(bert()) if callback else peftx.attach(bert(), "core.bitfit")
        folder = tmp_path / str(callback)
        seen: dict[int, Any] = {}

        class Keep(transformers.TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                seen[state.global_step] = pruning.values(adapted)  # noqa: B023

        run = trainer(
            adapted.model, folder, TransformersCallback(adapted), eval_dataset=Sentences(8), **settings
        )
        run.add_callback(Keep())
        run.train()
        assert len(seen) == 4
        best = int(Path(run.state.best_model_checkpoint).name.split("-")[1])
        assert best == run.state.best_global_step
        assert pruning.equal(pruning.values(adapted), seen[best])
        history = {row["step"]: row["eval_loss"] for row in run.state.log_history if "eval_loss" in row}
        assert min(history, key=lambda step: history[step]) == best
        assert run.evaluate()["eval_loss"] == pytest.approx(history[best], abs=1e-6)
        losses.append(history)
        if callback:
            assert pruning.running(adapted).events == steps_of(8)
    assert losses[0] != losses[1]


def test_several_adapters_are_bound_and_saved(
    tmp_path: Path, pruning: Any, steps_of: Callable[..., Any]
) -> None:
    def build() -> Any:
        adapted = pruning.attach(bert(), name="a", targets=["glob:*.query"])
        adapted.attach(pruning.method, name="b", targets=["glob:*.value"], also_train=[])
        adapted.attach("core.lora", name="idle", rank=2, targets=["glob:*.dense"], also_train=[])
        return adapted.activate("a", "b")

    whole = build()
    idle = pruning.values(whole)
    trainer(whole.model, tmp_path, TransformersCallback(whole), **RESUME).train()
    for name in ("a", "b"):
        assert pruning.running(whole, name).events == steps_of(8)
    after = pruning.values(whole)
    assert all(torch.equal(idle[key], after[key]) == key.startswith("idle") for key in idle)
    again = build()
    trainer(again.model, tmp_path, TransformersCallback(again), **RESUME).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-4")
    )
    assert pruning.equal(pruning.values(again), after)
    assert {file.name for file in (tmp_path / "checkpoint-4" / "peftx").iterdir() if file.is_dir()} == {
        "a",
        "b",
        "idle",
    }


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_none(
    pruning: Any, steps_of: Callable[..., Any], fused: bool
) -> None:
    """The Trainer's own wrapper and scaler, on the CPU: overflow at the second of four steps."""
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(True)
    accelerate.Accelerator(cpu=True)
    adapted = pruning.attach(bert())
    adapted.model.train()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    inner = torch.optim.AdamW(adapted.parameters(), 0.05, fused=fused)
    wrapped = accelerate.optimizer.AcceleratedOptimizer(inner, scaler=scaler)
    adapted.bind(wrapped, total_steps=3)
    batch = torch.utils.data.default_collate([Sentences()[n] for n in range(4)])
    schedule = pruning.running(adapted)
    for step in range(4):
        scaler.scale(adapted.model(**batch).loss).backward()
        if step == 1:
            next(iter(adapted.parameters())).grad[0] = torch.inf
        wrapped.step()
        wrapped.zero_grad()
    assert schedule.events == steps_of(3)
    # saliency was taken from true gradients, not from scaled ones
    assert max(float(value.max()) for value in schedule.saliency.values()) < 1
