"""LoRA and DoRA of peftx against the ``peft`` package and against the frozen floor, on ViT-B/16 on a CPU.

python benchmarks/peft_peer.py [--quick] [--out FILE] [--repeats 7]
                              [--parts equality bytes calls times life imports] [--methods lora dora]

One thread; process CPU time; variants interleaved in one process; ratios formed pair by pair. Prints one JSON line a
figure (or writes them to FILE), then Markdown tables. Before anything else it checks that both libraries compute the
same: the losses of five AdamW steps from equal factors differ by less than 1e-5.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from peer import lifecycle, measure
from peer.models import Size, Variant, base_model, build, require_grad_in
from peer.records import Recorder, table
from torch import nn

PARTS = ("equality", "bytes", "calls", "times", "life", "imports")
METHODS = ("lora", "dora")
FLOOR = Variant("floor")


def equality(recorder: Recorder, base: nn.Module, size: Size, methods: Sequence[str]) -> None:
    """Assert that both libraries take the same five steps."""
    batch = measure.data(2)
    for method in methods:
        ours, theirs = (
            measure.losses(build(Variant(lib, method), base, size), batch) for lib in ("peftx", "peft")
        )
        apart = max(abs(one - two) for one, two in zip(ours, theirs, strict=True))
        recorder.add("equality", method, "largest difference of 5 losses", apart, "")
        recorder.add("equality", method, "loss, first", ours[0], "")
        recorder.add("equality", method, "loss, fifth", ours[-1], "")
        if not apart < 1e-5:
            raise SystemExit(f"{method}: losses differ by {apart:.1e}: peftx {ours}, peft {theirs}")


def kept(recorder: Recorder, base: nn.Module, size: Size, methods: Sequence[str]) -> None:
    """Record the bytes kept for the backward pass, with and without the first block's input requiring grad."""
    batch = measure.data(size.bytes_batch)
    variants = [FLOOR]
    for method in methods:
        variants += [Variant("peft", method), Variant("peft", method, dropout=0.1)]
        variants += [Variant("peftx", method), Variant("peftx", method, dropout=0.1)]
        variants += [Variant("peftx", method, True), Variant("peftx", method, True, 0.1)]
    for variant in variants:
        model = build(variant, base, size)
        recorder.add("kept for backward", str(variant), "natural", measure.kept_mib(model, batch), "MiB")
        require_grad_in(model)
        recorder.add("kept for backward", str(variant), "grad in", measure.kept_mib(model, batch), "MiB")


def call_counts(recorder: Recorder, base: nn.Module, size: Size, methods: Sequence[str]) -> None:
    """Record ATen calls of a forward and backward pass; they do not depend on the batch."""
    batch = measure.data(1)
    for variant in (FLOOR, *(Variant(lib, m) for m in methods for lib in ("peft", "peftx"))):
        model = build(variant, base, size)
        require_grad_in(model)
        work, views = measure.calls(model, batch)
        recorder.add("ATen calls", str(variant), "computing", work, "calls")
        recorder.add("ATen calls", str(variant), "views", views, "calls")


def times(recorder: Recorder, base: nn.Module, size: Size, methods: Sequence[str], repeats: int) -> None:
    """Record step times, LoRA and DoRA each in a group with its own floor."""
    batch = measure.data(size.batch)
    for method in methods:
        variants = [FLOOR, Variant("peftx", method), Variant("peftx", method, True), Variant("peft", method)]
        models = [build(variant, base, size) for variant in variants]
        for model in models:
            require_grad_in(model)
        found = measure.paired_times(models, batch, repeats)
        name = f"step, batch {size.batch}, {'LoRA' if method == 'lora' else 'DoRA'}"
        for variant, seconds in zip(variants, found, strict=True):
            recorder.add(name, str(variant), "CPU time", seconds, "s")
            if variant is not FLOOR:
                ratios = [one / floor for one, floor in zip(seconds, found[0], strict=True)]
                recorder.add(name, str(variant), "over floor, paired", ratios, "x")
                recorder.add(name, str(variant), "over floor, fastest", min(seconds) / min(found[0]), "x")


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="2 blocks, small batches, 3 repeats: does it run?"
    )
    parser.add_argument("--out", type=Path, help="write the JSON lines here instead of to stdout")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--repeats", type=int, help="paired repeats of a step (default 7)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(depth=2, batch=1, bytes_batch=2) if args.quick else Size()
    repeats = args.repeats or (3 if args.quick else 7)
    recorder = Recorder(args.out)
    base = base_model(size)
    if "equality" in args.parts:
        equality(recorder, base, size, args.methods)
    if "bytes" in args.parts:
        kept(recorder, base, size, args.methods)
    if "calls" in args.parts:
        call_counts(recorder, base, size, args.methods)
    if "times" in args.parts:
        times(recorder, base, size, args.methods, repeats)
    if "life" in args.parts:
        lifecycle.life_cycle(recorder, base, size, args.methods, repeats)
    if "imports" in args.parts:
        lifecycle.imports(recorder, 3)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "peft"))
    print(
        f"\nPython {platform.python_version()}, {packages}, {os.cpu_count()} cores, 1 thread\n",
        file=sys.stderr,
    )
    print(table(recorder.records))


if __name__ == "__main__":
    main()
