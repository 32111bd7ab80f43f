"""What kernels are for: the memory of a layer's norm, whole models' steps and peaks, the weights of a live model."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peer import measure
from peer.in_flight import InFlight
from peer.models import CLASSES
from snell import build
from torch import Tensor, nn

import peftx
import peftx_kernels
from kernelbench.cards import Card
from kernelbench.checking import check_switch
from kernelbench.costs import switch as cost_of_switch
from kernelbench.ops import Wrong
from kernelbench.results import Row
from kernelbench.timing import Times, interleaved
from peftx import artifacts

__all__ = ["memory", "models", "sparse_switch"]

_NAMES = ("vit_base_patch16_224", "vit_large_patch16_224", "vit_huge_patch14_224")


def memory(device: torch.device, card: Card, repeats: int) -> Iterator[Row]:
    """What DoRA's norm needs beside its inputs: ours by thin products, the plain form by the merged weight."""
    width, rank = (8192, 384) if device.type == "cuda" else (1024, 64)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    weight = torch.randn(width, width, device=device).to(dtype)
    a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((rank, width), (width, rank)))
    sums = peftx_kernels.row_sq(weight)
    variants: dict[str, Callable[[], Tensor]] = {
        "composition": lambda: torch.linalg.vector_norm(weight + 2.0 * (b @ a), dim=1),
        "ours": lambda: peftx_kernels.dora_norm(sums, weight, a, b, 2.0),
    }
    for name, run in variants.items():
        run()  # whatever is made once
        case = f"dora_norm of {width} x {width}, rank {rank}"
        yield Row("memory", case, name, "norm workspace", _peak(run, device) / 1e6, "MB")


def _peak(run: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that live at once during a call besides what lived before."""
    if device.type != "cuda":
        with InFlight() as counter:
            run()
        return counter.most
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def models(device: torch.device, card: Card, repeats: int) -> Iterator[Row]:
    """SNELL of rank 8 against LoRA of rank 8 on whole vision transformers: step, peak, and kept bytes on a CPU."""
    gpu = device.type == "cuda"
    names = _NAMES if gpu else _NAMES[:1]
    for name in names:
        batch = 8 if gpu else 2
        base = _vit(name, {} if gpu else {"depth": 2}).to(device)
        case = f"{name}, batch {batch}" + ("" if gpu else ", 2 blocks")
        images, labels = (part.to(device) for part in measure.data(batch))
        steps = {}
        for variant, method in (("LoRA", "LoRA"), ("ours", "SNELL")):
            model, optimizer = build(method, base, 8, 1000)
            step = partial(_step, model, optimizer, images, labels)
            step()
            if gpu:
                peak = (torch.cuda.memory_allocated(device) + _peak(step, device)) / 1e6
                yield Row("models", case, variant, "peak memory", peak, "MB")
            else:
                kept = measure.kept_mib(model, (images, labels))
                yield Row("models", case, variant, "kept for the backward", kept, "MiB")
            del model, optimizer, step
            gc.collect()  # the other one's peak is its own
        for variant, method in (("LoRA", "LoRA"), ("ours", "SNELL")):
            steps[variant] = [partial(_step, *build(method, base, 8, 1000), images, labels)]
        for variant, times in interleaved(steps, device, repeats).items():
            yield _timed("models", case, variant, "step", times)


def _vit(name: str, options: dict[str, int]) -> nn.Module:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **options)
    nn.init.normal_(model.head.weight, std=0.02)
    return model


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def sparse_switch(device: torch.device, card: Card, repeats: int) -> Iterator[Row]:
    """A sparse adapter of 1 % over the 48 linear maps of ViT-B: written, changed for another one, taken out.

    Raises:
        Wrong: the kernels do not write the reference's bits.
    """
    if not check_switch(device):
        raise Wrong("sparse_switch does not write what its reference writes, or does not take it out again")
    model = _vit(_NAMES[0], {}).to(device).eval()
    for name, seed in (("a", 0), ("b", 1)):
        options: dict[str, Any] = {"rank": 6, "seed": seed, "targets": ["attention", "mlp"], "also_train": []}
        adapted = peftx.attach(model, "core.shira", name=name, **options)
        with torch.no_grad():
            for parameter in adapted.parameters():
                parameter.normal_(std=0.01)
    adapted.activate()
    sites = adapted.attachment("a").plan
    values = sum(site.numel for site in sites)
    entries = [{s: t for (s, slot), t in adapted.tensors(n).items() if slot == "v"} for n in "ab"]
    share = sum(t.numel() for t in entries[0].values()) / values
    case = f"{len(sites)} maps of ViT-B, {100 * share:.3g} % of {values / 1e6:.3g} M values"
    weights: list[Any] = [model.get_submodule(site.module)._parameters[site.weight] for site in sites]
    tables = []
    for name in "ab":
        held = adapted.tensors(name)
        index = [held[site.key, "indices"].sort().values for site in sites]
        tables.append(peftx_kernels.SparseTable(weights, index, [held[s.key, "v"] for s in sites]))
    acts: dict[str, tuple[Callable[[], Any], ...]] = {
        "composition": _by_indexing(weights, tables),
        "ours": tuple(
            partial(peftx_kernels.sparse_switch, *pair)
            for pair in ((None, tables[0]), (tables[0], tables[1]), (tables[1], None))
        ),
        "artifacts.fuse": (
            partial(artifacts.fuse, adapted, "a"),
            partial(artifacts.fuse, adapted, "b"),
            adapted.unfuse,
        ),
        "scatter_ alone": _by_scatter(weights, tables),  # last: nothing is put back
    }
    cost = cost_of_switch(values, share, 4)
    for name, steps in acts.items():
        for metric, times in zip(("on", "switch", "off"), _in_turn(steps, device, repeats), strict=True):
            both = 2 if metric == "switch" else 1
            yield _timed("sparse_switch", case, name, metric, times, card, both * cost.traffic)


def _by_indexing(weights: list[Any], tables: list[Any]) -> tuple[Callable[[], Any], ...]:
    """The same with indexing, weight by weight."""
    parts = [
        list(zip(weights, t.parts_of(t.indices.long()), t.parts_of(t.values), strict=True)) for t in tables
    ]
    kept: list[Tensor] = []

    @torch.no_grad()
    def on(which: int) -> None:
        for weight, at, value in parts[which]:
            flat = weight.view(-1)
            kept.append(flat[at])
            flat[at] += value

    @torch.no_grad()
    def off(which: int) -> None:
        for (weight, at, _), old in zip(parts[which], kept, strict=True):
            weight.view(-1)[at] = old
        kept.clear()

    return partial(on, 0), lambda: (off(0), on(1)), partial(off, 1)


def _by_scatter(weights: list[Any], tables: list[Any]) -> tuple[Callable[[], Any], ...]:
    """The least that library calls can do: values are written, nothing is read or kept."""
    parts = [
        list(zip(weights, t.parts_of(t.indices.long()), t.parts_of(t.values), strict=True)) for t in tables
    ]

    @torch.no_grad()
    def write(which: int) -> None:
        for weight, at, value in parts[which]:
            weight.view(-1).scatter_(0, at, value)

    return partial(write, 0), lambda: (write(0), write(1)), partial(write, 1)


def _in_turn(steps: tuple[Callable[[], Any], ...], device: torch.device, repeats: int) -> list[Times]:
    """Times of acts that follow on one another, in the processor's time; on a GPU until it is done."""
    gpu = device.type == "cuda"
    clock = time.perf_counter if gpu else time.process_time
    found: list[list[float]] = [[] for _ in steps]
    for repeat in range(-3, repeats):
        for act, seconds in zip(steps, found, strict=True):
            if gpu:
                torch.cuda.synchronize(device)
            begin = clock()
            act()
            if gpu:
                torch.cuda.synchronize(device)
            if repeat >= 0:
                seconds.append(clock() - begin)
    return [Times(tuple(seconds)) for seconds in found]


def _timed(
    part: str,
    case: str,
    variant: str,
    metric: str,
    times: Times,
    card: Card | None = None,
    traffic: float = 0.0,
) -> Row:
    low, high = times.spread
    best = None if card is None else traffic / card.bandwidth * 1e3
    bound = "" if card is None else "memory"
    value, n = times.median * 1e3, len(times.seconds)
    return Row(part, case, variant, metric, value, "ms", n, low * 1e3, high * 1e3, best, bound, 0.0, traffic)
