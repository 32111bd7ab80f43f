"""A contact sheet of training images: what a reader should see before believing anything about generated data.

`python -m peftx_vision.pretrain.sheet --out FILE.png`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .mix import Mix

COLUMNS, ROWS = 14, 6
SCALE = 2  # nearest neighbour: the pixels are the point
GAP = 1


def contact_sheet(seed: int = 0, step: int = 0) -> Tensor:  # (3, H, W) in [0, 1]
    """One batch: three rows of strokes, then contours, then fractals, as in the second stage of training."""
    images = Mix(seed).batch(step, COLUMNS * ROWS).images
    framed = torch.nn.functional.pad(images, (GAP, GAP, GAP, GAP), value=1.0)
    rows = [torch.cat(list(row), dim=2) for row in framed.split(COLUMNS)]
    return torch.cat(rows, dim=1)


def main(arguments: list[str] | None = None) -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m peftx_vision.pretrain.sheet", description="Contact sheet."
    )
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=int, default=0)
    options = parser.parse_args(arguments)
    sheet = (contact_sheet(options.seed, options.step) * 255).round().byte().permute(1, 2, 0)
    picture = Image.fromarray(sheet.numpy())
    picture = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.out, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
