"""What happens to an adapter besides training: inject, save, load, switch, merge; and what an import costs."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import peftx
from peer.models import ALPHA, RANK, TARGETS, Size, Variant, build, peft_model
from peer.records import Recorder

__all__ = ["imports", "life_cycle"]


def _timed(run: Callable[[Any], Any], prepare: Callable[[], Any], repeats: int) -> list[float]:
    """Return process CPU milliseconds of ``run(prepare())``, without the preparation; one warm-up."""
    times = []
    for _ in range(repeats + 1):
        given = prepare()
        start = time.process_time()
        run(given)
        times.append((time.process_time() - start) * 1e3)
    return times[1:]


def life_cycle(recorder: Recorder, base: nn.Module, size: Size, methods: Sequence[str], repeats: int) -> None:
    """Record every operation for each method, with ``peft`` beside it."""
    for method in methods:
        ours, theirs = Variant("peftx", method), Variant("peft", method)
        adapted = peftx.adapted(build(ours, base, size))
        wrapped = build(theirs, base, size)
        _inject_save_load(recorder, base, adapted, wrapped, ours, theirs, repeats)
        _switch(recorder, adapted, wrapped, ours, theirs, repeats)
        _merge(recorder, adapted, wrapped, ours, theirs, size, repeats)


def _attach(model: nn.Module, method: str, name: str = "default") -> Any:
    return peftx.attach(model, f"core.{method}", name=name, rank=RANK, alpha=ALPHA, targets=TARGETS)


def _inject_save_load(
    recorder: Recorder,
    base: nn.Module,
    adapted: Any,
    wrapped: Any,
    ours: Variant,
    theirs: Variant,
    repeats: int,
) -> None:
    import peft

    from peftx import artifacts

    def plain() -> nn.Module:
        return copy.deepcopy(base)

    def add(variant: Variant, metric: str, run: Callable[[Any], Any], prepare: Callable[[], Any]) -> None:
        recorder.add("life cycle", str(variant), metric, _timed(run, prepare, repeats), "ms")

    add(ours, "inject", lambda model: _attach(model, ours.method), plain)
    add(theirs, "inject", lambda model: peft_model(model, theirs), plain)
    with tempfile.TemporaryDirectory() as folder:
        mine, other = Path(folder, "mine"), Path(folder, "other")
        add(ours, "save", lambda path: artifacts.save(adapted, path), lambda: mine)
        add(theirs, "save", wrapped.save_pretrained, lambda: other)
        add(ours, "load", lambda model: artifacts.load(model, mine), plain)
        add(theirs, "load", lambda model: peft.PeftModel.from_pretrained(model, other), plain)


def _switch(
    recorder: Recorder, adapted: Any, wrapped: Any, ours: Variant, theirs: Variant, repeats: int
) -> None:
    _attach(adapted.model, ours.method, "second")
    wrapped.add_adapter("second", wrapped.peft_config["default"])
    for variant, switch in ((ours, adapted.activate), (theirs, wrapped.set_adapter)):
        names = itertools.cycle(["second", "default"])
        times = _timed(switch, lambda names=names: next(names), 2 * repeats - 1)  # ends on "default"
        recorder.add("life cycle", str(variant), "switch", times, "ms")


def _merge(
    recorder: Recorder, adapted: Any, wrapped: Any, ours: Variant, theirs: Variant, size: Size, repeats: int
) -> None:
    """Record in-place merges into fp32 weights, as times and as ratios to the bare ``addmm_`` over the same shapes."""
    modules = dict(adapted.model.named_modules())
    hosts = [modules[f"blocks.{block}.{target}"] for block in range(size.depth) for target in TARGETS]
    weights = [host._parameters["weight"].detach().clone() for host in hosts]
    deltas = [host._modules["peftx"].get_submodule("default.weight") for host in hosts]
    shapes = [(torch.randn(w.shape[0], RANK), torch.randn(RANK, w.shape[1]) * 1e-3) for w in weights]

    def raw(_: Any) -> None:
        for weight, (b, a) in zip(weights, shapes, strict=True):
            weight.addmm_(b, a, alpha=1e-6)

    @torch.no_grad()
    def mine(_: Any) -> None:
        for weight, delta in zip(weights, deltas, strict=True):
            factors = delta.rank_factors()
            if factors is None:
                weight.copy_(delta.effective(weight, None)[0])
            else:
                weight.addmm_(*factors)

    def peers(_: Any) -> None:
        wrapped.merge_adapter()

    def unmerged() -> None:
        if any(getattr(module, "merged_adapters", None) for module in wrapped.modules()):
            wrapped.unmerge_adapter()

    floors, rows, others = [], [], []
    for _ in range(repeats):  # interleaved: each ratio is of neighbours in time
        floors += _timed(raw, lambda: None, 1)
        rows += _timed(mine, lambda: None, 1)
        others += _timed(peers, unmerged, 1)
    recorder.add("life cycle", "raw addmm_", "merge", floors, "ms")
    for variant, times in ((ours, rows), (theirs, others)):
        recorder.add("life cycle", str(variant), "merge", times, "ms")
        ratios = [time / floor for time, floor in zip(times, floors, strict=True)]
        recorder.add("life cycle", str(variant), "merge over addmm_", ratios, "x")


def imports(recorder: Recorder, repeats: int) -> None:
    """Record CPU seconds and loaded modules of imports, each in a fresh interpreter."""
    statements = {
        "(bare Python)": "",
        "peftx": "import peftx",
        "peftx_kernels": "import peftx_kernels",
        "torch": "import torch",
        "peftx.attach": "import peftx; peftx.attach",
        "timm": "import timm",
        "peft": "import peft",
    }
    tail = "\nimport sys, time, json; print(json.dumps([time.process_time(), len(sys.modules)]))"
    for name, statement in statements.items():
        found = []
        for _ in range(repeats):
            done = subprocess.run(
                [sys.executable, "-c", statement + tail], check=True, capture_output=True, text=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
        recorder.add("imports", name, "CPU time", min(seconds for seconds, _ in found), "s")
        recorder.add("imports", name, "modules", found[0][1], "modules")
