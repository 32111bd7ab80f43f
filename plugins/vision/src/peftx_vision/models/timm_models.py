"""Any timm model by its name, with weights from a file, from the hub, or none."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from peftx.errors import ModelError, near_matches
from peftx_vision.config.tasks import TimmConfig
from peftx_vision.models import hub
from peftx_vision.models.names import timm_name
from peftx_vision.models.npz import fit_npz
from peftx_vision.models.weights import checksum, fit_weights, read_weights, set_provenance

__all__ = ["build_timm"]


def build_timm(name: str, config: TimmConfig, outputs: int | None, *, offline: bool = False) -> nn.Module:
    """Build the timm model `name` with a fresh head of `outputs` (None: the model's own).

    Raises:
        ModelError: timm has no such model, the weights are missing or do not fit, or an option is not for this model.
        NetworkError: the weights are not on this machine, and the hub is off or out of reach.
    """
    name = timm_name(name)
    if not timm.is_model(name):
        known = [*timm.list_models(), "vit_micro"]
        hint = near_matches(name.partition(".")[0], known) or " `timm.list_models()` lists them all."
        raise ModelError(f"no model is called {name!r}: neither a registered one nor a timm name.{hint}")
    model = _create(name, config, outputs)
    if config.weights is not None:
        path = config.weights.expanduser()
        if path.suffix.lower() == ".npz":
            notes = fit_npz(model, path)
        else:
            notes = fit_weights(model, read_weights(path), path.name)
        set_provenance(model, notes, weights=path.name, sha256=checksum(path))
    elif config.pretrained:
        path = hub.weights_file(_hub_id(name), name, offline=offline)
        notes = fit_weights(model, read_weights(path), f"of {name}")
        set_provenance(model, notes, weights=_hub_id(name), sha256=checksum(path))
    else:
        set_provenance(model, [f"{name} starts at random: no pretrained weights"], weights=None)
    return model


def _create(name: str, config: TimmConfig, outputs: int | None) -> nn.Module:
    options: dict[str, Any] = {}
    if outputs is not None:
        options["num_classes"] = outputs
    if config.in_chans is not None:
        options["in_chans"] = config.in_chans
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    fixed = _cfg(name).get("fixed_input_size", False)
    if config.image_size is not None and fixed:
        options["img_size"] = config.image_size
    try:
        model = timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # timm checks options with assertions, KeyErrors and TypeErrors alike
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ModelError(
            f"timm cannot build {name} with {given}: {str(error).splitlines()[0][:160]}"
        ) from error
    if config.image_size is not None:
        size = (config.in_chans or _cfg(name)["input_size"][0], config.image_size, config.image_size)
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": size}
    return model


def _cfg(name: str) -> dict[str, Any]:
    found = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return {} if found is None else found.to_dict()


def _hub_id(name: str) -> str:
    found = _cfg(name).get("hf_hub_id")
    if not found:
        raise ModelError(
            f"timm names no downloadable weights for {name}: give --model.weights FILE, or --model.pretrained false"
        )
    return str(found)
