"""Reading a file of weights and fitting it to a model: everything or an error, the classifier apart.

A file for another number of classes is normal (that is what fine-tuning starts from): its classifier is dropped, and
said so. Any other difference is an error, because a silently random layer costs days.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from peftx.errors import ModelError

__all__ = ["checksum", "classifier_paths", "fit_weights", "provenance", "read_weights", "set_provenance"]

#: Keys under which training scripts store the weights inside a checkpoint, most specific first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
#: Prefixes that data-parallel and compiled training leave on every key.
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from a torch file without running any code in it.

    Raises:
        ModelError: no such file, not weights, damaged, or a kind of file that is not read.
    """
    if not path.is_file():
        raise ModelError(f"no weights file at {path}")
    kind = path.suffix.lower()
    if kind not in (".safetensors", ".pt", ".pth", ".bin"):
        raise ModelError(f"cannot read weights from {path}: expected a .safetensors, .pt or .pth file")
    try:
        if kind == ".safetensors":
            found: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                # the unpickler wonders aloud about files it then refuses; one sentence is enough
                warnings.simplefilter("ignore", UserWarning)
                found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch's unpickler meets a file that is none with whatever its stack machine raises
        raise ModelError(
            f"{path} is not a readable weights file ({_first_line(error)}): it is damaged, of another kind than its "
            "name says, or needs to run code; save the plain state dict as safetensors"
        ) from error
    return _plain(_unwrap(found, path))


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> list[str]:
    """Load `weights` into `model`; return sentences on what was left out.

    timm's own conversion for the model's family runs first (renamed keys, positions resampled to another size). The
    classifier is left as it is when the file has none or one of another width; everything else must be there, with
    the right shape, and nothing may be left over.

    Raises:
        ModelError: the weights belong to another architecture.
    """
    own = model.state_dict()
    converted = _convert(model, dict(weights), source)
    notes = _adapt_channels(model, own, converted)
    heads = classifier_paths(model)
    in_head = {key for key in {*own, *converted} if any(key.startswith(f"{head}.") for head in heads)}
    fits = {
        key for key in in_head if key in own and key in converted and own[key].shape == converted[key].shape
    }
    whole = {key for key in in_head if key in own} <= fits
    if not whole:
        stored = next((int(converted[k].shape[0]) for k in sorted(in_head) if k in converted), None)
        had = f"its head for {stored} classes is dropped" if stored else "it has no head"
        notes.append(f"weights {source}: {had}, a new one is trained")
    dropped = set() if whole else in_head
    odd = sorted(
        key
        for key in {*own, *converted} - dropped
        if key not in own or key not in converted or own[key].shape != converted[key].shape
    )
    if odd:
        raise ModelError(f"{source} does not fit {type(model).__name__}: {_difference(odd, own, converted)}")
    model.load_state_dict({key: converted[key] for key in own if key not in dropped}, strict=False)
    return notes


def classifier_paths(model: nn.Module) -> tuple[str, ...]:
    """Paths of the classifier layers, as timm declares them; never guessed from names."""
    declared = getattr(model, "pretrained_cfg", {}).get("classifier", ())
    return (declared,) if isinstance(declared, str) else tuple(declared or ())


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def set_provenance(model: nn.Module, notes: list[str], **card: Any) -> None:
    """Keep with the model, in the place timm keeps such things, where its weights come from."""
    model.pretrained_cfg = {**_cfg(model), "peftx": {"card": card, "notes": notes}}  # type: ignore[assignment]


def provenance(model: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """Return the (card, notes) that `set_provenance` kept; empty for models from elsewhere."""
    kept = _cfg(model).get("peftx", {})
    return dict(kept.get("card", {})), list(kept.get("notes", []))


def _cfg(model: nn.Module) -> dict[str, Any]:
    found = getattr(model, "pretrained_cfg", None) or {}
    return dict(found) if isinstance(found, Mapping) else dict(json.loads(found.to_json()))


def _unwrap(found: Any, path: Path) -> Mapping[str, Tensor]:
    for _ in range(3):
        if isinstance(found, Mapping) and found and all(isinstance(v, Tensor) for v in found.values()):
            return found
        inner = [k for k in _WRAPPERS if isinstance(found, Mapping) and isinstance(found.get(k), Mapping)]
        if not inner:
            break
        found = found[inner[0]]
    raise ModelError(f"{path} holds no state dict: expected names mapped to tensors")


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return dict(weights)


def _convert(model: nn.Module, weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Apply the family's `checkpoint_filter_fn`, which timm keeps beside the model class."""
    family = inspect.getmodule(type(model))
    function = getattr(family, "checkpoint_filter_fn", None)
    if function is None or not type(model).__module__.startswith("timm."):
        return weights
    try:
        return dict(function(weights, model))
    except Exception as error:  # the filters assume their own family's keys and fail in every way on others
        raise ModelError(
            f"{source} does not fit {type(model).__name__}: its tensors are not those of this architecture "
            f"({_first_line(error)})"
        ) from error


def _adapt_channels(model: nn.Module, own: Mapping[str, Tensor], converted: dict[str, Tensor]) -> list[str]:
    """Let the first convolution take another number of colour channels, by timm's rule (sum, or repeat and scale)."""
    first = getattr(model, "pretrained_cfg", {}).get("first_conv")
    key = f"{first}.weight"
    if not isinstance(first, str) or key not in own or key not in converted:
        return []
    mine, stored = own[key], converted[key]
    if mine.ndim != 4 or stored.ndim != 4 or mine.shape[1] == stored.shape[1] or stored.shape[1] != 3:
        return []
    converted[key] = adapt_input_conv(mine.shape[1], stored)
    return [f"first convolution: {stored.shape[1]} input channels turned into {mine.shape[1]}"]


def _difference(odd: list[str], own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str:
    key = next((k for k in odd if k in own and k in stored), odd[0])
    more = f" (and {len(odd) - 1} more tensors differ)" if odd[1:] else ""
    if key not in stored:
        return f"{key} is missing{more}"
    if key not in own:
        return f"{key} is not part of the model{more}"
    return f"{key} has shape {tuple(stored[key].shape)}, expected {tuple(own[key].shape)}{more}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120]
