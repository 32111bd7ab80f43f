"""The operations of peftx-kernels on the machine at hand: right? how fast, beside whom, how near the roofline?

python benchmarks/kernels.py [--part NAME ...] [--device cuda|cpu] [--out FILE] [--repeats 21]
python benchmarks/kernels.py --roofline [H200]          (a table for a card, no GPU needed)

Every part checks its operation against the reference in float64 at odd shapes first; one that is wrong is not timed,
and the status is 1. Then medians over repeats in which the variants take turns, on inputs larger than the cache
together: the bare product with the frozen weight, the operation as one would write it (composition), the same through
torch.compile, the layer of the `peft` package where it has one, and ours as PEFTX_KERNELS=auto runs it (with a GPU also
each tier alone). On a GPU a part takes some minutes, so run parts one by one where time is short. On a CPU (one thread,
processor time) the shapes are small and there are no kernels: what is compared is each operation's library form.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from kernelbench.cards import CARDS, Card, card_of
from kernelbench.cases import OPS
from kernelbench.ops import Wrong, measure_op
from kernelbench.results import Row, judged, table, to_dict
from kernelbench.roofline import roofline_table

Part = Callable[[torch.device, Card, int], Iterator[Row]]


def _models(name: str, device: torch.device, card: Card, repeats: int) -> Iterator[Row]:
    from kernelbench import models  # needs timm and peftx

    yield from getattr(models, name)(device, card, repeats)


PARTS: dict[str, Part] = {
    **{op: (lambda device, card, repeats, op=op: measure_op(op, device, card, repeats)) for op in OPS},
    **{name: partial(_models, name) for name in ("sparse_switch", "memory", "models")},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=" ".join(PARTS)
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="write everything here as JSON, too")
    parser.add_argument("--repeats", type=int, default=21, help="timed repeats of each variant (default 21)")
    cards = [card.name for card in CARDS]
    parser.add_argument(
        "--roofline", nargs="?", const="H200", choices=cards, help="print the cost model and stop"
    )
    args = parser.parse_args(arguments)
    if args.roofline:
        print(roofline_table(next(card for card in CARDS if card.name == args.roofline)))
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA GPU is visible; --device cpu compares the library forms on the CPU", file=sys.stderr)
        return 2
    if args.device == "cpu":
        torch.set_num_threads(1)
    device = torch.device(args.device)
    card = card_of(device)
    rows: list[Row] = []
    status = 0
    for name in args.part:
        try:
            for row in PARTS[name](device, card, args.repeats):
                rows.append(row)
                print(f"{row.part}: {row.case}, {row.metric}, {row.variant}: {row.value}", file=sys.stderr)
        except Wrong as error:
            print(f"WRONG: {error}", file=sys.stderr)
            status = 1
        if device.type == "cuda":
            torch.cuda.empty_cache()
        _write(args.out, card, rows, args.device)
    print(
        f"{environment()}\n{card.name}: {card.bandwidth / 1e9:.4g} GB/s, {card.half / 1e12:.3g} TFLOP/s in bf16, "
        f"{card.single / 1e12:.3g} in fp32 ({card.source})\n"
    )
    print(table(rows), "\n")
    print("\n".join(judged(rows, args.device)))
    return status


def _write(path: Path | None, card: Card, rows: list[Row], device: str) -> None:
    """Write what there is so far: a part that is cut short must not cost the others."""
    if path is not None:
        found = {"environment": environment(), "card": card.name, "rows": [to_dict(row) for row in rows]}
        path.write_text(json.dumps(found | {"targets": judged(rows, device)}, indent=1) + "\n")


def environment() -> str:
    """The versions and the machine, in one line."""
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "triton", "peft", "timm", "peftx-kernels"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return f"{', '.join(found)}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    raise SystemExit(main())
