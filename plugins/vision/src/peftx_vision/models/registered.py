"""Targets of the models this pack registers: ``build(config, outputs) -> nn.Module``."""

from __future__ import annotations

from torch import nn

from peftx_vision.config.tasks import VitMicroConfig
from peftx_vision.models.vit_micro import CARD_NAME, WEIGHTS_NAME, build_vit_micro
from peftx_vision.models.weights import checksum, fit_weights, read_weights, set_provenance

__all__ = ["vit_micro"]


def vit_micro(config: VitMicroConfig, outputs: int | None) -> nn.Module:
    """Build `vision.vit_micro`; `outputs` None leaves it without a head.

    Raises:
        ModelError: the weights are missing, damaged, or do not fit.
    """
    shipped = config.pretrained and config.weights is None
    model: nn.Module = build_vit_micro(outputs or 0, pretrained=shipped)
    if config.weights is not None:
        path = config.weights.expanduser()
        notes = fit_weights(model, read_weights(path), path.name)
        set_provenance(model, notes, weights=path.name, sha256=checksum(path))
    elif shipped:
        set_provenance(model, [], weights=WEIGHTS_NAME, card=CARD_NAME)
    else:
        set_provenance(model, ["vit_micro starts at random: no pretrained weights"], weights=None)
    return model
