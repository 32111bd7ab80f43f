"""SNELL and SNELLA of peftx-vision against LoRA on the same sites of ViT-B/16 on a CPU: memory and step time.

python benchmarks/snell.py [--quick] [--out FILE] [--repeats 7] [--batch 8] [--rank 8] [--variants SNELL SNELLA]

One thread; process CPU time; variants interleaved in one process; ratios to LoRA formed pair by pair. Every variant
adapts q, k, v (as slices of the fused weight), the attention's output map and both maps of the MLP in all blocks, at
one rank; the input of the first block requires grad. "in flight" is the most that lives at once inside one layer's
backward besides its inputs, in float32 copies of the largest map (768 x 3072).
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from peer import measure
from peer.in_flight import InFlight
from peer.models import Size, base_model, require_grad_in
from peer.records import Recorder, table
from torch import Tensor, nn

import peftx

TARGETS = ["attention.q", "attention.k", "attention.v", "attention.out", "mlp"]
METHODS = {"floor": None, "LoRA": "core.lora", "SNELL": "vision.snell", "SNELLA": "vision.snella"}


def build(name: str, base: nn.Module, rank: int, steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the variant over the frozen weights of `base`, in train mode, and its optimizer, bound."""
    model = copy.deepcopy(base)
    shared = dict(base.named_parameters())
    for key, parameter in model.named_parameters():
        parameter.data = shared[key].data if not key.startswith("head") else shared[key].data.clone()
        parameter.requires_grad_(key.startswith("head"))
    method = METHODS[name]
    adapted = None
    if method is not None:
        torch.manual_seed(1)
        adapted = peftx.attach(model, method, rank=rank, targets=TARGETS)
        for key, parameter in model.named_parameters():
            if key.endswith(".B") and name == "LoRA":
                nn.init.normal_(parameter, std=0.01)
    require_grad_in(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    if adapted is not None:
        adapted.bind(optimizer, total_steps=steps)
    return model.train(), optimizer


def times(
    built: list[tuple[nn.Module, torch.optim.Optimizer]], batch: tuple[Tensor, Tensor], repeats: int
) -> list[list[float]]:
    """Return process CPU seconds of whole steps, a list a variant; every other repeat in reverse order."""
    found: list[list[float]] = [[] for _ in built]
    for repeat in range(-1, repeats):  # the first is a warm-up
        order = range(len(built))
        for index in order if repeat % 2 else reversed(order):
            model, optimizer = built[index]
            start = time.process_time()
            F.cross_entropy(model(batch[0]), batch[1]).backward()
            optimizer.step()
            optimizer.zero_grad()
            if repeat >= 0:
                found[index].append(time.process_time() - start)
    return found


def in_flight(model: nn.Module) -> float:
    """Return the transients of one block's widest map, two tokens long, in copies of it."""
    layer = model.get_submodule("blocks.0.mlp.fc1")
    x = torch.randn(1, 2, 768, requires_grad=True)
    with InFlight() as counter:
        y = layer(x)
        counter.begin()
        y.sum().backward()
    model.zero_grad()
    return counter.most / (768 * 3072 * 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 blocks, batch 1, 3 repeats: does it run?")
    parser.add_argument("--out", type=Path, help="write the JSON lines here instead of to stdout")
    parser.add_argument("--repeats", type=int, help="paired repeats of a step (default 7)")
    parser.add_argument("--batch", type=int, help="images a step (default 8)")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument(
        "--variants", nargs="+", choices=[n for n in METHODS if n != "LoRA"], default=list(METHODS)
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    repeats = args.repeats or (3 if args.quick else 7)
    size = Size(depth=2 if args.quick else 12, batch=args.batch or (1 if args.quick else 8))
    recorder = Recorder(args.out)
    base, batch = base_model(size), measure.data(size.batch)
    names = [name for name in METHODS if name == "LoRA" or name in args.variants]
    built = [build(name, base, args.rank, 10 * (repeats + 1)) for name in names]
    title = f"rank {args.rank}, batch {size.batch}"
    for name, (model, _) in zip(names, built, strict=True):
        recorder.add(
            title, name, "trained", sum(p.numel() for p in model.parameters() if p.requires_grad), ""
        )
        recorder.add(title, name, "kept for backward", measure.kept_mib(model, batch), "MiB")
        if name != "floor":
            recorder.add(title, name, "in flight", in_flight(model), "maps")
    found = times(built, batch, repeats)
    lora = found[names.index("LoRA")]
    for name, seconds in zip(names, found, strict=True):
        recorder.add(title, name, "step", seconds, "s")
        ratios = [one / other for one, other in zip(seconds, lora, strict=True)]
        recorder.add(title, name, "over LoRA, paired", ratios, "x")
        recorder.add(title, name, "over LoRA, fastest", min(seconds) / min(lora), "x")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm"))
    print(
        f"\nPython {platform.python_version()}, {packages}, {os.cpu_count()} cores, 1 thread\n",
        file=sys.stderr,
    )
    print(table(recorder.records))


if __name__ == "__main__":
    main()
