"""Training settings that suit each method on this pack's models.

`_VIT_MICRO` was chosen by validation accuracy on digits (359 images, seed 0, batch 64; one image is 0.28 points), on
the weights that ship. Each figure is one
``peftx run vision --data digits --method M --lr LR --epochs E --train.batch-size 64 --baselines none``:

    core.head   1e-2: 98.05   3e-2: 98.05   1e-1: 95.82   3e-1: 96.66    (10 epochs; equal: the lower loss, 3e-2)
    core.lora   3e-3: 98.33   1e-2: 98.61   3e-2: 12.26                  (8 epochs; 3e-2 diverges)
    core.full   3e-4: 98.61   1e-3: 99.16   3e-3: 98.89                  (8 epochs)

    vision.snella   3e-3: 98.05   1e-2: 98.05   3e-2: 98.33   1e-1: 97.49    (8 epochs)
    vision.snell    3e-3: 97.21   3e-2: 98.33   1e-1: 97.21                 (8 epochs)

    vision.ssf           3e-3: 97.77   1e-2: 98.05   3e-2: 97.21                 (8 epochs)
    vision.hydra         3e-3: 98.05   1e-2: 98.61   3e-2: 97.77                 (8 epochs)
    vision.vpt_shallow   3e-3: 96.66   1e-2: 97.49   3e-2: 96.94   1e-1: 96.38    (8 epochs)
    vision.vpt_deep      3e-3: 97.49   1e-2: 97.77   3e-2: 98.05   1e-1: 96.94    (8 epochs)

    vision.adaptertune      3e-3: 98.89   1e-2: 99.16   3e-2: 98.33   1e-1: 96.10    (8 epochs)
    vision.adaptformer      3e-3: 98.61   1e-2: 98.61   3e-2: 98.33   1e-1: 96.94    (8; equal: the lower loss, 1e-2)
    vision.mosa             3e-3: 97.21   1e-2: 98.05   3e-2: 98.05   1e-1: 96.94    (8; equal: the lower loss, 3e-2)
    vision.bi_adaptformer   3e-3: 97.49   1e-2: 98.33   3e-2: 98.05   1e-1: 97.49    (8 epochs)
    vision.bi_lora          3e-3: 97.21   1e-2: 98.89   3e-2: 98.05   1e-1: 92.48    (8 epochs)

DoRA, rsLoRA and BitFit take LoRA's rate; they were not searched. Eight epochs keep the whole table of the first run
within about a minute on two free cores.

`_PRETRAINED` holds common values for networks pretrained on large collections of photographs: a starting point that
was not searched here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["recipe"]

_VIT_MICRO: dict[str, dict[str, Any]] = {
    "core.head": {"lr": 3e-2, "epochs": 10},
    "core.bitfit": {"lr": 1e-2},
    "core.lora": {"lr": 1e-2},
    "core.rslora": {"lr": 1e-2},
    "core.dora": {"lr": 1e-2},
    "core.full": {"lr": 1e-3},
    "vision.snell": {"lr": 3e-2},
    "vision.snella": {"lr": 3e-2},
    "vision.ssf": {"lr": 1e-2},
    "vision.hydra": {"lr": 1e-2},
    "vision.vpt_shallow": {"lr": 1e-2},
    "vision.vpt_deep": {"lr": 3e-2},
    "vision.adaptertune": {"lr": 1e-2},
    "vision.adaptformer": {"lr": 1e-2},
    "vision.mosa": {"lr": 3e-2},
    "vision.bi_adaptformer": {"lr": 1e-2},
    "vision.bi_lora": {"lr": 1e-2},
}
_PRETRAINED: dict[str, dict[str, Any]] = {
    "core.head": {"lr": 1e-2},
    "core.bitfit": {"lr": 1e-3},
    "core.lora": {"lr": 1e-3},
    "core.rslora": {"lr": 1e-3},
    "core.dora": {"lr": 1e-3},
    "core.full": {"lr": 1e-4},
    "vision.snell": {"lr": 1e-3},
    "vision.snella": {"lr": 1e-3},
}


def recipe(method: str, model: str) -> dict[str, Any]:
    """Return fields of TrainConfig for `method` on `model` (full names); methods without one get LoRA's."""
    if model == "vision.vit_micro":
        return {"epochs": 8, "batch_size": 64, **_VIT_MICRO.get(method, _VIT_MICRO["core.lora"])}
    return dict(_PRETRAINED.get(method, _PRETRAINED["core.lora"]))
