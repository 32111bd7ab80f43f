"""Laws of tasks: reproducible models, batches that cover every sample once, means that are means, exact meters."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from peftx.adapters.site import KINDS
from peftx.adapters.survey import parameter_sites, weight_sites
from peftx.config.run import TrainConfig
from peftx.evaluation import evaluate
from peftx.runs.matching import why_not
from peftx.tasks.contract import Batch, Task
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.laws.options import check_options
from peftx.testing.subjects import TaskSubject
from peftx.testing.trial import near

__all__ = [
    "build",
    "covers",
    "keeps_no_model",
    "loss",
    "meter",
    "metrics",
    "offers",
    "recipes",
    "task_config",
]

#: batch sizes that leave a rest of any small split
SIZES = (7, 4, 1)


@law("task")
def task_config(subject: TaskSubject) -> None:
    """The configuration imports no torch, survives JSON, and describes its options; so do the options of predicting."""
    check_options(subject.entry.load("config"), lambda: subject.plan.task_config)
    if subject.spec.predict_config:
        asked = subject.entry.load("predict_config")
        check_options(asked, asked)


@law("task")
def offers(subject: TaskSubject) -> None:
    """What it offers is there: kinds of sites in its default model, a default method and baselines that fit."""
    spec, registry = subject.spec, subject.registry
    foreign = sorted(set(spec.offers.sites) - set(KINDS))
    demand(
        not foreign,
        f"it offers sites of kind {foreign[0] if foreign else ''!r}, which there is none of: {', '.join(KINDS)}",
    )
    for name in (*([spec.default_method] if spec.default_method else []), *spec.baselines):
        reason = why_not(registry.resolve_method(name).spec, spec)
        demand(not reason, f"{name} is declared for it and does not fit: {reason}")
    demand(subject.make().splits(), "it has no split")
    if not spec.offers.sites:
        return
    model = subject.build(subject.make())
    found = {site.kind for site in (*weight_sites(model), *parameter_sites(model))}
    demand(
        found & set(spec.offers.sites),
        f"it offers {', '.join(spec.offers.sites)} sites, its default model has only {', '.join(sorted(found))}",
    )


@law("task")
def build(subject: TaskSubject) -> None:
    """The model is new each time and the same bits for the same seed."""
    task = subject.make()
    one, two = subject.build(task), subject.build(task)
    demand(isinstance(one, nn.Module), f"build_model gave a {type(one).__name__}, expected a torch module")
    demand(one is not two, "build_model gave the same model twice")
    first, second = one.state_dict(), two.state_dict()
    demand(list(first) == list(second), "two models have different state-dict keys")
    shared = {t.data_ptr() for t in first.values() if t.numel()} & {
        t.data_ptr() for t in second.values() if t.numel()
    }
    demand(not shared, "two models share parameters")
    for key, value in first.items():
        demand(torch.equal(value, second[key]), f"from the same seed, {key} differs between two models")


def _joined(task: Task, split: str, size: int, **options: Any) -> tuple[dict[str, Tensor], list[int]]:
    """All batches of a pass joined, and their sizes; the number of batches is checked on the way."""
    batches = task.batches(split, size, **options)
    promised = len(batches)
    parts: dict[str, list[Tensor]] = {}
    sizes: list[int] = []
    for batch in batches:
        counts = {name: int(value.shape[0]) for name, value in batch.items()}
        demand(
            len(set(counts.values())) == 1,
            f"the tensors of a batch of {split} hold different numbers of samples: {counts}",
        )
        sizes.append(next(iter(counts.values())))
        for name, value in batch.items():
            parts.setdefault(name, []).append(value)
    demand(
        len(sizes) == promised,
        f"{split} in batches of {size}: {promised} were promised, {len(sizes)} came",
    )
    return {name: torch.cat(values) for name, values in parts.items()}, sizes


@law("task")
def covers(subject: TaskSubject) -> None:
    """Batches hold every sample once, in stored order unless training, and a generator alone decides the rest."""
    task = subject.make()
    for split in task.splits():
        count = task.samples(split)
        whole, sizes = _joined(task, split, SIZES[0])
        demand(
            sum(sizes) == count, f"{split} has {count} samples, its batches of {SIZES[0]} hold {sum(sizes)}"
        )
        other, sizes = _joined(task, split, SIZES[1])
        demand(
            sum(sizes) == count, f"{split} has {count} samples, its batches of {SIZES[1]} hold {sum(sizes)}"
        )
        for name, value in whole.items():
            demand(
                _same(value, other[name]),
                f"{name} of {split} differs between batches of {SIZES[0]} and of {SIZES[1]}",
            )
    count = task.samples("train")
    stored, _ = _joined(task, "train", SIZES[0])
    passes = []
    for seed in (1, 1, 2):
        drawn, sizes = _joined(
            task, "train", SIZES[0], train=True, generator=torch.Generator().manual_seed(seed)
        )
        demand(sum(sizes) == count, f"train has {count} samples, a training pass holds {sum(sizes)}")
        passes.append(drawn)
    for name, value in passes[0].items():
        demand(
            _same(value, passes[1][name]),
            f"two training passes with the same generator differ in {name}",
        )
        if not value.is_floating_point() and value.dim() == 1 and name in stored:
            demand(
                Counter(value.tolist()) == Counter(stored[name].tolist()),
                f"a training pass holds other {name} than the split: some samples come twice, others never",
            )
    if count > SIZES[0]:
        demand(
            any(not _same(value, passes[2][name]) for name, value in passes[0].items()),
            "two training passes with different generators come in the same order",
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal bit for bit, where NaN, which stands for a missing value, is equal to itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    missing = one.isnan()
    return torch.equal(missing, other.isnan()) and torch.equal(one[~missing], other[~missing])


def _batch(task: Task, size: int) -> Batch:
    return next(iter(task.batches("train", size)))


def _rows(batch: Any, start: int, stop: int, count: int) -> Any:
    def cut(value: Any) -> Any:
        return (
            value[start:stop] if isinstance(value, Tensor) and value.dim() and len(value) == count else value
        )

    return tree_map(cut, batch)


@law("task")
def loss(subject: TaskSubject) -> None:
    """The loss is a finite scalar with a gradient, and the mean over samples however a batch is cut."""
    task = subject.make()
    model = subject.build(task)
    batch = _batch(task, 12)
    count = int(next(iter(batch.values())).shape[0])
    whole = task.loss(model, batch)
    demand(
        isinstance(whole, Tensor) and whole.dim() == 0,
        f"the loss has shape {tuple(getattr(whole, 'shape', ()))}, expected a scalar",
    )
    demand(torch.isfinite(whole), f"the loss is {float(whole)}")
    demand(whole.requires_grad, "the loss has no gradient")
    gradients = torch.autograd.grad(
        whole, [p for p in model.parameters() if p.requires_grad], allow_unused=True
    )
    demand(any(g is not None and g.any() for g in gradients), "no parameter of the model moves the loss")
    with torch.no_grad():
        for cut in (1, count // 2, count - 1):
            parts = [(0, cut), (cut, count)]
            mean = sum(float(task.loss(model, _rows(batch, a, b, count))) * (b - a) for a, b in parts) / count
            demand(
                math.isclose(mean, float(whole), rel_tol=1e-4, abs_tol=1e-5),
                f"cut into {cut} and {count - cut} samples, the mean of the losses is {mean:.6g}; whole it is "
                f"{float(whole):.6g}",
            )


@law("task")
def meter(subject: TaskSubject) -> None:
    """The meter gives the same figures however the samples are batched, and counts them all."""
    task = subject.make()
    model = subject.build(task)
    batch = _batch(task, 12)
    count = int(next(iter(batch.values())).shape[0])
    with torch.no_grad():
        outputs = task.forward(model, batch)
    if not any(
        isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == count for leaf in tree_leaves(outputs)
    ):
        raise NotApplicable("its outputs have no dimension of samples to cut along")
    found = []
    for size in (count, 5, 1):
        one = task.meter()
        for start in range(0, count, size):
            stop = min(start + size, count)
            one.update(_rows(outputs, start, stop, count), _rows(batch, start, stop, count))
        found.append(one.compute())
    whole = found[0]
    demand("n" in whole and int(whole["n"]) == count, f"of {count} samples the meter counts {whole.get('n')}")
    for size, other in zip((5, 1), found[1:], strict=True):
        demand(other.keys() == whole.keys(), f"in batches of {size} the meter gives other figures")
        for name, value in whole.items():
            same = math.isclose(other[name], value, rel_tol=1e-6, abs_tol=1e-9)
            demand(
                same or (math.isnan(value) and math.isnan(other[name])),
                f"{name} is {value:.9g} in one batch and {other[name]:.9g} in batches of {size}",
            )


@law("task", needs=["covers", "meter"])
def metrics(subject: TaskSubject) -> None:
    """An evaluation gives the metric that decides on its split and `n`, finite, whatever the batch size."""
    task = subject.make()
    model = subject.build(task)
    last = task.splits()[-1]
    for split in dict.fromkeys(("val", last) if task.selects and "val" in task.splits() else (last,)):
        _decided(task, model, split)


def _decided(task: Task, model: nn.Module, split: str) -> None:
    found = [evaluate(task, model, split, size) for size in (SIZES[0], SIZES[2])]
    primary, _ = task.decides(split)
    for scores in found:
        demand(
            primary in scores,
            f"the metric {primary}, which decides on {split}, is not among {', '.join(scores) or 'no metric'}",
        )
        demand(
            scores.get("n") == task.samples(split),
            f"{split} has {task.samples(split)} samples, n is {scores.get('n')}",
        )
        demand(math.isfinite(scores[primary]), f"{primary} is {scores[primary]}")
    near(
        torch.tensor(found[0][primary]),
        torch.tensor(found[1][primary]),
        1e-3,
        f"{primary} in two batch sizes",
    )
    foreign = sorted(set(task.units) - set(found[0]))
    if foreign and len(foreign) == len(task.units):
        raise LawError(f"units are given for {', '.join(foreign)}, of which none is a metric")


@law("task")
def keeps_no_model(subject: TaskSubject) -> None:
    """After a model was built, trained on and scored, the task does not hold it."""
    task = subject.make()
    model = subject.build(task)
    task.loss(model, _batch(task, 4)).backward()
    evaluate(task, model, task.splits()[-1], 4)
    gone = weakref.ref(model)
    del model
    gc.collect()
    demand(gone() is None, "the task, or something it made, still holds the model")


@law("task")
def recipes(subject: TaskSubject) -> None:
    """Its recipes are training settings, for its default method and for every baseline."""
    task = subject.make()
    spec = subject.spec
    for name in dict.fromkeys((spec.default_method or "core.lora", *spec.baselines, "nobody.knows")):
        recipe = task.recipe(name)
        try:
            TrainConfig(**recipe)
        except Exception as error:
            raise LawError(
                f"the recipe for {name} is no set of training settings: {str(error).splitlines()[0]}"
            ) from error
