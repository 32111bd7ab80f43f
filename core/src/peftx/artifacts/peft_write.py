"""Writing an adapter as HF PEFT reads it: LORA for what has rank factors, DoRA, and SHIRA for what is sparse.

What PEFT would compute otherwise is refused, with the site and the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from peftx.adapters.delta import Delta, Owned, Statistic
from peftx.adapters.handle import Adapted
from peftx.adapters.site import Site
from peftx.adapters.slot import is_reserved, slots_of
from peftx.artifacts.peft_format import CONFIG, PREFIX, TENSORS
from peftx.artifacts.peft_lora import Factors, factors_of, write_lora
from peftx.artifacts.peft_shira import write_shira
from peftx.artifacts.weights import effective_values
from peftx.artifacts.writing import new_folder
from peftx.errors import ArtifactError

__all__ = ["to_peft"]

_ADAPTED = re.compile(r"\.(?:lora|shira)_[A-Za-z_]+(?:\.weight)?$")


def to_peft(
    adapted: Adapted, folder: Path | str, name: str | None = None, *, base_model: str | None = None
) -> Path:
    """Write an adapter as a folder of HF PEFT (``adapter_config.json``, ``adapter_model.safetensors``).

    The adapter stays as it is. PEFT's model then computes what this one does: LORA for every update with
    `rank_factors`, LORA with use_dora for core.dora, SHIRA for `sparse` ones; owned parameters go to modules_to_save,
    with the base's values for the rest of their modules.

    Args:
        adapted: the handle.
        folder: where to; new or empty.
        name: which adapter; the active one by default.
        base_model: what the file says its base is; by default the name the model was loaded under, if it has one.

    Returns:
        The folder.

    Raises:
        ArtifactError: PEFT has no way to say it (a site, and why), the adapter holds NaN, or the folder is taken.
    """
    attachment = adapted.attachment(name)
    deltas = _deltas(adapted, attachment.name)
    kind, config, tensors = _adapter(adapted.model, deltas, attachment.method_name)
    saved = _saved_modules(adapted.model, deltas, config["target_modules"])
    if saved:
        config["modules_to_save"] = sorted(saved)
        for path, values in saved.items():
            tensors |= {f"{PREFIX}{path}.{key}": value for key, value in values.items()}
    _check_saved(adapted.model, config, tensors)
    config |= {
        "peft_type": kind,
        "base_model_name_or_path": base_model or _base_name(adapted.model),
        "task_type": None,
        "inference_mode": True,
    }
    if kind == "LORA":
        config["lora_dropout"] = float(getattr(attachment.config, "dropout", 0.0))
    for key, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ArtifactError(f"{key.removeprefix(PREFIX)} holds NaN or Inf; nothing was written")
    folder = Path(folder)
    with new_folder(folder) as place:
        whole = {key: value.detach().cpu().contiguous().clone() for key, value in sorted(tensors.items())}
        save_file(whole, place / TENSORS, metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (place / CONFIG).write_text(text, encoding="utf-8")
    return folder


def _deltas(adapted: Adapted, name: str) -> list[tuple[nn.Module, Delta]]:
    return [(module, delta) for _, module, slot in slots_of(adapted.model) for delta in slot.deltas((name,))]


def _adapter(
    model: nn.Module, deltas: Sequence[tuple[nn.Module, Delta]], method: str
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """(type, configuration, tensors) of everything but owned parameters."""
    lora: dict[tuple[str, str], list[Factors]] = {}
    sparse: dict[str, list[tuple[Site, Tensor, Tensor]]] = {}
    with torch.no_grad():
        for module, delta in deltas:
            if isinstance(delta, Owned | Statistic):
                continue
            site = delta.site
            factors = factors_of(delta)
            values = delta.sparse() if factors is None else None
            if delta.changes_bias or (factors is None and values is None):
                raise ArtifactError(
                    f"{method} at {site.key} is neither a low-rank nor a sparse update, and HF PEFT has no other file "
                    "for it; export the merged model instead"
                )
            _refuse_place(module, site, method, magnitudes=factors is not None and factors.m is not None)
            if factors is not None:
                lora.setdefault((site.module, site.weight), []).append(factors)
            elif values is not None:
                sparse.setdefault(site.module, []).append((site, *values))
    if lora and sparse:
        raise ArtifactError(
            f"{method} has low-rank and sparse updates, and a PEFT adapter is one or the other"
        )
    if not lora and not sparse:
        raise ArtifactError(
            f"{method} adapts no weight besides parameters it owns whole, and PEFT has no file for that alone; export "
            "the merged model instead"
        )
    if sparse:
        return write_shira(model, sparse)
    return write_lora(model, lora)


def _refuse_place(module: nn.Module, site: Site, method: str, *, magnitudes: bool) -> None:
    """Refuse sites where PEFT computes something else, or nothing."""
    why = ""
    dilated = (
        any(step != 1 for step in getattr(module, "dilation", ()))
        if site.kind == "conv2d"
        else (site.kind == "conv1d" and getattr(module, "dilation", (1,)) != (1,))
    )
    if not site.module:
        why = "the weight belongs to the model itself, and PEFT adapts modules inside it"
    elif site.kind.startswith("conv") and (dilated or getattr(module, "padding_mode", "zeros") != "zeros"):
        why = "PEFT runs A of a convolution without the layer's dilation and padding mode"
    elif site.kind.startswith("conv") and site.groups > 1 and magnitudes:
        why = "PEFT's DoRA knows no groups of channels"
    elif site.kind == "embedding" and getattr(module, "max_norm", None) is not None:
        why = "PEFT limits the length of rows before the update, not after it"
    elif site.kind == "packed_attention" and site.weight == "weight":
        why = "PEFT 0.21 applies the update of a packed attention's output projection twice, and a later one may not"
    elif site.kind == "packed_attention" and (magnitudes or site.weight != "in_proj_weight"):
        why = "PEFT adapts a packed attention by LORA with one width for query, key and value"
    if why:
        place = site.key or "the model itself"
        raise ArtifactError(
            f"{method} at {place} cannot be written for HF PEFT: {why}; export the merged model"
        )


def _saved_modules(
    model: nn.Module, deltas: Sequence[tuple[nn.Module, Delta]], targets: list[str] | str
) -> dict[str, dict[str, Tensor]]:
    """Owned parameters as PEFT stores them: whole modules, by path."""
    owned: dict[str, list[tuple[nn.Module, Delta]]] = {}
    for module, delta in deltas:
        if isinstance(delta, Statistic) and torch.equal(delta.value, _buffer(module, delta.site.weight)):
            continue
        if isinstance(delta, Owned | Statistic):
            owned.setdefault(delta.site.module, []).append((module, delta))
    if "" in owned:
        raise ArtifactError(
            f"{owned[''][0][1].site.key} belongs to the model itself, and PEFT stores modules inside it; export the "
            "merged model instead"
        )
    values: dict[str, Tensor] = {}
    with torch.no_grad():
        for path, pieces in owned.items():
            module = pieces[0][0]
            own = effective_values(
                [delta for _, delta in pieces if isinstance(delta, Owned)], module._parameters
            )
            own |= {delta.site.weight: delta.value for _, delta in pieces if isinstance(delta, Statistic)}
            values |= {f"{path}.{name}": value for name, value in own.items()}
    # a module inside another that is stored is stored with it
    outer = [path for path in owned if not any(path.startswith(f"{other}.") for other in owned)]
    return {path: _state(model, path, values) for path in outer}


def _buffer(module: nn.Module, name: str) -> Tensor:
    buffer: Any = module._buffers[name]
    return buffer


def _state(model: nn.Module, path: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A module's state: what the adapter owns, and the base's values for the rest."""
    state = model.get_submodule(path).state_dict()
    return {key: values.get(f"{path}.{key}", value) for key, value in state.items() if not is_reserved(key)}


def _check_saved(model: nn.Module, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """PEFT looks for modules_to_save by the end of their names, and never adapts anything inside one."""
    saved: list[str] = config["modules_to_save"] or []
    keys = [key.removeprefix(PREFIX) for key in tensors]
    adapted = {
        re.split(r"(?:\.base_layer\.out_proj)?\.(?:lora|shira)_", key)[0]
        for key in keys
        if _ADAPTED.search(key)
    }
    for path in sorted(adapted):
        if any(re.match(rf"(^|.*\.){one}($|\..*)", path) or path.endswith(one) for one in saved):
            raise ArtifactError(
                f"{path} is adapted and also found by {', '.join(saved)} in modules_to_save, where PEFT would not "
                "adapt it; export the merged model instead"
            )
    for path, _ in list(model.named_modules()):
        if path not in saved and not is_reserved(path) and any(path.endswith(one) for one in saved):
            # found as well, by the end of its name: its own values, so that nothing is missing
            state = _state(model, path, {})
            tensors.update(
                {
                    f"{PREFIX}{path}.{key}": v
                    for key, v in state.items()
                    if f"{PREFIX}{path}.{key}" not in tensors
                }
            )


def _base_name(model: nn.Module) -> str | None:
    name = getattr(getattr(model, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and name else None
