"""vision/quick: every method on the handwritten digits, in minutes and without a download."""

from __future__ import annotations

from peftx.config.suite import Suite

__all__ = ["QUICK"]

#: The digits with all their 1,079 training images, and with 100 of them. Batches of 64 make 17 steps of a pass over
#: all, batches of 50 make two of a pass over a hundred, so that 8 and 68 epochs are both 136 optimizer steps: the two
#: tables differ in their data and not in how long a method was trained.
QUICK = Suite(
    task="vision.classification",
    about=(
        "Handwritten digits of 8 x 8 pixels, all 1,079 training images and 100 of them, each for 136 optimizer steps. "
        "The split is the same for all seeds; the best epoch is chosen on 359 validation images. On 359 test images "
        "one image is 0.28 points: a smoke test of methods, no benchmark of them."
    ),
    data=(
        {"name": "vision.digits", "train": {"epochs": 8, "batch_size": 64}},
        {"name": "vision.digits", "limit_train": 100, "train": {"epochs": 68, "batch_size": 50}},
    ),
    models=("vision.vit_micro",),
    methods=("all",),
    seeds=3,
)
