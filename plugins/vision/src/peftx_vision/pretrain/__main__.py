"""`python -m peftx_vision.pretrain --seed 0 --passes 424000 --out FILE`: train vit_micro on generated images."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save

from peftx.errors import UserError

from .checkpoint import write_atomically
from .train import Recipe, Trainer, train


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; `--help` shows them."""
    default = Recipe()
    parser = argparse.ArgumentParser(prog="python -m peftx_vision.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="weights to write (safetensors)")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--passes", type=int, default=default.passes, help="images of both stages (%(default)s)"
    )
    parser.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    parser.add_argument(
        "--threads", type=int, default=1, help="results are repeatable per number (%(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, help="continued if it is there (OUT with .checkpoint)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train, write the weights, print their facts as JSON; 2 is the status of an error the user can mend."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    recipe = Recipe(seed=options.seed, passes=options.passes, bf16=not options.fp32)
    checkpoint = options.checkpoint or options.out.with_name(options.out.name + ".checkpoint")
    start = time.perf_counter()
    try:
        trainer = Trainer(recipe)
        train(trainer, checkpoint, report=lambda line: print(line, file=sys.stderr, flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    blob = save(trainer.trunk_weights())
    write_atomically(options.out, blob)
    facts = {
        "sha256": hashlib.sha256(blob).hexdigest(),
        "bytes": len(blob),
        "passes": recipe.steps * recipe.batch_size,
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
