"""Laws of rows to compare with, methods of kind *model*: a row that is fitted to what it is scored on, or trained by
another loop than it says, makes every adapter beside it look worse or better than it is.
"""

from __future__ import annotations

import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from peftx import artifacts
from peftx.errors import ConfigError
from peftx.evaluation import evaluate
from peftx.tasks.contract import Batch, Task, batch_count, in_context
from peftx.tasks.models import ModelMethod
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.laws.options import check_options
from peftx.testing.rows import RowSubject, RowTrial, elsewhere, on_every_task, state_of
from peftx.testing.trial import near
from peftx.training.seeds import seed_all

__all__ = [
    "answers",
    "built",
    "fit",
    "fits",
    "gradients",
    "learns",
    "own_answer",
    "reload",
    "row_config",
    "steady",
    "trained",
    "training_split",
    "without_samples",
]

#: samples of the batch that most laws look at
FEW = 12
#: samples of the batch that steps are taken on, and how many steps
LEARNT, STEPS = 32, 8


@law("row")
def row_config(subject: RowSubject) -> None:
    """The configuration imports no torch, survives JSON, and describes its options."""
    check_options(subject.entry.load("config"), lambda: subject.config)


@law("row")
def fits(subject: RowSubject) -> None:
    """A task of its domain takes it, and every other one is refused by a ConfigError of one sentence."""
    demand(subject.candidates, "there is no task in its domain, so it can be compared nowhere")
    here = [trial for trial in subject.candidates if not trial.missing]
    for trial in here:
        if trial.refusal is not None:
            name = trial.task_entry.name
            _refusal(name, trial.refusal)
            demand(
                name not in subject.spec.tasks,
                f"it names {name} among its tasks, and refuses it: {trial.refusal}",
            )
            continue
        made = trial.build()
        demand(isinstance(made, nn.Module), f"build gave a {type(made).__name__}, expected a torch module")
    foreign = elsewhere()
    try:
        subject.method.build(foreign, subject.config)
    except Exception as error:
        _refusal("a task that is nobody's", error)
    if not here:
        raise NotApplicable(subject.candidates[0].missing)
    refused = [str(trial.refusal) for trial in here if trial.refusal is not None]
    demand(len(refused) < len(here), f"no task takes it: {refused[0] if refused else ''}")


def _refusal(task: str, error: Exception) -> None:
    demand(
        isinstance(error, ConfigError),
        f"building it on {task} raised {type(error).__name__} ({error}), expected a model or a ConfigError",
    )
    text = str(error).strip()
    demand(text and "\n" not in text, f"its refusal of {task} is not one sentence: {text!r}")


@law("row")
@on_every_task
def built(trial: RowTrial) -> None:
    """A build is a new model, the same bits for the same seed."""
    one, two = trial.build(), trial.build()
    demand(one is not two, "the same model was given twice")
    demand(
        not {p.data_ptr() for p in one.parameters() if p.numel()}
        & {p.data_ptr() for p in two.parameters() if p.numel()},
        "two builds share parameters",
    )
    _same_state(state_of(one), state_of(two), "two builds from the same seed")
    batch = trial.batch("train", FEW)
    _same(_outputs(trial, one, batch), _outputs(trial, two, batch), "two builds from the same seed")


@law("row", needs=["built"])
@on_every_task
def without_samples(trial: RowTrial) -> None:
    """It depends on shapes alone: built from a record, without a sample, it is the same, bit for bit."""
    bare = trial.task_without_data()
    try:
        again = trial.build(bare)
    except Exception as error:
        raise LawError(
            f"it cannot be built where the splits hold no sample, so no run of it predicts: {type(error).__name__}: "
            f"{error}"
        ) from error
    whole = trial.build()
    what = "the model built with the samples and the one built without any"
    _same_state(state_of(whole), state_of(again), what)
    batch = trial.batch("train", FEW)
    _same(_outputs(trial, whole, batch), _outputs(trial, again, batch), what)


@law("row", needs=["built"])
@on_every_task
def trained(trial: RowTrial) -> None:
    """Its descriptor says `trained` where gradient steps give it its values, and only there."""
    own = type(trial.subject.method).fit is not ModelMethod.fit
    parameters = trial.parameters
    if trial.trained:
        demand(
            parameters,
            "it is declared trained and has no parameter: declare it with trained=False, or a learning rate is "
            "searched for it",
        )
        demand(
            not own,
            "it is declared trained, so its `fit` is never called: declare it with trained=False, or leave `fit` out",
        )
        return
    demand(
        own or not parameters,
        f"it is declared with trained=False and gives its {len(parameters)} parameters no values: write `fit`",
    )
    if not own:
        raise NotApplicable("it has no parameter")


def _fitted_only(trial: RowTrial) -> None:
    if trial.trained:
        raise NotApplicable("gradient steps train it")
    if not trial.parameters:
        raise NotApplicable("it has no parameter")


@law("row", needs=["trained"])
@on_every_task
def fit(trial: RowTrial) -> None:
    """Where no gradient step trains it, `fit` gives every parameter a finite value, the same each time."""
    _fitted_only(trial)
    parameters, values = trial.parameters, trial.values
    for name, parameter in parameters.items():
        demand(name in values, f"it gives no value for the parameter {name}")
        value = values[name]
        demand(
            isinstance(value, Tensor), f"the value of {name} is a {type(value).__name__}, expected a tensor"
        )
        demand(
            value.shape == parameter.shape,
            f"the value of {name} has shape {tuple(value.shape)}, the parameter's is {tuple(parameter.shape)}",
        )
        demand(torch.isfinite(value).all(), f"the value of {name} is not finite")
    foreign = sorted(values.keys() - parameters.keys())
    demand(not foreign, f"it gives a value for {foreign[0] if foreign else ''}, which is no parameter")
    for name, value in trial.fit().items():
        demand(torch.equal(value, values[name]), f"fitted again from the same seed, {name} differs")


@law("row", needs=["fit"])
@on_every_task
def training_split(trial: RowTrial) -> None:
    """`fit` sees the training split alone: whatever the others hold, the values are the same."""
    _fitted_only(trial)
    values = trial.values
    judged = False
    for held, task in trial.tasks_otherwise_held_out():
        judged = True
        try:
            found = trial.fit(task)
        except Exception as error:
            raise LawError(
                f"`fit` reads more than the training split: where {held} it raised {type(error).__name__} ({error})"
            ) from error
        for name, value in values.items():
            demand(
                torch.equal(value, found[name]),
                f"`fit` reads more than the training split: {name} is another where {held}",
            )
    if not judged:
        raise NotApplicable("its task cannot be made with other held-out splits")


@law("row", needs=["fit"])
@on_every_task
def answers(trial: RowTrial) -> None:
    """Loss and meter read what it gives on every split: finite, and every sample counted."""
    model, task = trial.scored, trial.task
    for split in task.splits():
        batch = trial.batch(split, FEW)
        for leaf in _outputs(trial, model, batch):
            demand(torch.isfinite(leaf).all(), f"what it gives on {split} is not finite")
        with torch.no_grad():
            loss = task.loss(model, batch)
        demand(loss.dim() == 0 and torch.isfinite(loss), f"the loss on {split} is {loss}, expected a number")
    split = min(task.splits(), key=task.samples)
    scores = evaluate(task, model, split, 256)
    metric, _ = task.decides(split)
    score = scores.get(metric)
    demand(score is not None and math.isfinite(score), f"{metric} on {split} is {score}, expected a number")
    demand(
        scores.get("n") == task.samples(split),
        f"{split} has {task.samples(split)} samples, of which {scores.get('n')} were counted",
    )


@law("row", needs=["answers"])
@on_every_task
def steady(trial: RowTrial) -> None:
    """In evaluation mode it draws nothing and changes nothing: the same batch gives the same bits."""
    model = trial.scored
    before = state_of(model)
    batch = trial.batch("train", FEW)
    _same(
        _outputs(trial, model, batch),
        _outputs(trial, model, batch, seed=1),
        "two forwards on the same batch in evaluation mode",
    )
    _same_state(before, state_of(model), "its state before and after a forward in evaluation mode")


@law("row", needs=["answers", "steady"])
@on_every_task
def own_answer(trial: RowTrial) -> None:
    """The answer to a sample is its own: the same alone, among others, and in any order."""
    model = trial.scored
    batch = trial.batch("train", FEW)
    count = batch_count(batch)
    whole = _outputs(trial, model, batch)
    demand(
        any(leaf.dim() and len(leaf) == count for leaf in whole),
        f"for {count} samples it gives {_shapes(whole)}, which has no dimension of samples",
    )
    orders = {
        "in another order": list(reversed(range(count))),
        "alone": [0],
        "beside one other": [count - 1, 0],
    }
    for how, order in orders.items():
        found = _outputs(trial, model, {name: value[order] for name, value in batch.items()})
        for one, other in zip(whole, found, strict=True):
            if one.dim() and len(one) == count:
                near(other, one[order], 1e-4, f"the answers to the same samples {how} and among {count}")


def _steps_only(trial: RowTrial) -> None:
    if not trial.trained:
        raise NotApplicable("no gradient step trains it")


@law("row", needs=["trained", "answers"])
@on_every_task
def gradients(trial: RowTrial) -> None:
    """Every parameter of a row that is trained gets a finite gradient, and one at least is not zero."""
    _steps_only(trial)
    made = trial.make()
    assert made.adapted is not None
    _step_loss(trial.task, made.model.train(), trial.batch("train", LEARNT)).backward()
    moved = False
    for (site, _), tensor in made.adapted.tensors().items():
        if not tensor.requires_grad:
            continue
        demand(
            tensor.grad is not None,
            f"the loss does not depend on {site}: what no gradient trains belongs in a buffer, or nowhere",
        )
        assert tensor.grad is not None
        demand(torch.isfinite(tensor.grad).all(), f"the gradient of {site} is not finite")
        moved = moved or bool(tensor.grad.any())
    demand(moved, "the gradients of all parameters are zero")


@law("row", needs=["gradients"])
@on_every_task
def learns(trial: RowTrial) -> None:
    """A few steps of a row that is trained lower the loss of the batch they are taken on."""
    _steps_only(trial)
    batch, rate = trial.batch("train", LEARNT), trial.row.train.lr or 1e-3
    seen = []
    # the rate of a recipe is made for thousands of steps on other batches, and may be too large for a few on one
    for lr in (rate, rate / 10, rate / 100):
        made = trial.make()
        assert made.adapted is not None
        optimizer = torch.optim.Adam(made.adapted.parameters(), lr=lr)
        losses = [_loss(trial, made.model, batch)]
        for _ in range(STEPS):
            optimizer.zero_grad()
            _step_loss(trial.task, made.model.train(), batch).backward()
            optimizer.step()
            losses.append(_loss(trial, made.model, batch))
        if min(losses[1:]) < losses[0]:
            return
        seen.append(f"{min(losses[1:]):.6g} at a rate of {lr:g}")
    raise LawError(f"the loss of a batch is {losses[0]:.6g}, and after {STEPS} steps on it {', '.join(seen)}")


def _step_loss(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    with in_context(task, model, batch):
        return task.loss(model, batch)


def _loss(trial: RowTrial, model: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        return float(_step_loss(trial.task, model.eval(), batch))


@law("row", needs=["without_samples", "fit", "steady", "gradients"])
@on_every_task
def reload(trial: RowTrial) -> None:
    """Stored and built again as a run does it, without a sample, it gives the same answers, bit for bit."""
    made = trial.ready()
    if made.adapted is None:
        raise NotApplicable("it has no parameter, so nothing is stored")
    batch = trial.batch("train", LEARNT)
    if trial.trained:
        optimizer = torch.optim.Adam(made.adapted.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            _step_loss(trial.task, made.model.train(), batch).backward()
            optimizer.step()
        made.model.eval()
    wanted = _outputs(trial, made.model, batch)
    with tempfile.TemporaryDirectory() as folder:
        artifacts.save(made.adapted, Path(folder) / "adapter")
        again = trial.build(trial.task_without_data())
        artifacts.load(again, Path(folder) / "adapter")
        found = _outputs(trial, again.eval(), batch)
    _same(wanted, found, "the answers of the model and of the one that was read back")


def _outputs(trial: RowTrial, model: nn.Module, batch: Batch, seed: int = 0) -> list[Tensor]:
    """What a forward in evaluation mode gives, as tensors; the batch is a copy, so that nothing done to it shows."""
    mode = model.training
    model.eval()
    seed_all(seed)
    with torch.no_grad():
        found: Any = trial.task.forward(model, copy.deepcopy(batch))
    model.train(mode)
    return [leaf.detach().clone() for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def _same(one: list[Tensor], two: list[Tensor], what: str) -> None:
    for first, second in zip(one, two, strict=True):
        demand(
            torch.equal(first.nan_to_num(), second.nan_to_num()),
            f"{what} differ in what they give"
            + (
                f" by up to {float((first - second).abs().max()):.2g}"
                if first.shape == second.shape and first.is_floating_point()
                else ""
            ),
        )


def _same_state(one: dict[str, Tensor], two: dict[str, Tensor], what: str) -> None:
    odd = sorted(one.keys() ^ two.keys())
    demand(not odd, f"{what} have other keys: {odd[0] if odd else ''}")
    for key, value in one.items():
        demand(
            value.shape == two[key].shape and torch.equal(value.nan_to_num(), two[key].nan_to_num()),
            f"{what} differ in {key}",
        )


def _shapes(leaves: list[Tensor]) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in leaves) or "no tensor"
