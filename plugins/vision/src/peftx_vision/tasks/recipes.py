"""Training settings that suit each method, chosen on validation data.

`_VIT_MICRO`: picked by validation accuracy on digits.
`_PRETRAINED`: common values for networks pretrained on large collections of photographs; a starting point that was not
searched here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["recipe"]

_VIT_MICRO: dict[str, dict[str, Any]] = {
    "core.head": {"lr": 1e-1, "epochs": 30},
    "core.bitfit": {"lr": 1e-2},
    "core.lora": {"lr": 1e-2},
    "core.rslora": {"lr": 1e-2},
    "core.dora": {"lr": 1e-2},
    "core.full": {"lr": 1e-3},
}
_PRETRAINED: dict[str, dict[str, Any]] = {
    "core.head": {"lr": 1e-2},
    "core.bitfit": {"lr": 1e-3},
    "core.lora": {"lr": 1e-3},
    "core.rslora": {"lr": 1e-3},
    "core.dora": {"lr": 1e-3},
    "core.full": {"lr": 1e-4},
}


def recipe(method: str, model: str) -> dict[str, Any]:
    """Return fields of TrainConfig for `method` on `model` (full names); methods without one get LoRA's."""
    if model == "vision.vit_micro":
        return {"batch_size": 64, **_VIT_MICRO.get(method, _VIT_MICRO["core.lora"])}
    return dict(_PRETRAINED.get(method, _PRETRAINED["core.lora"]))
