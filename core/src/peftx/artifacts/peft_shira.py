"""Sparse updates as HF PEFT's SHIRA tensors: values and pairs of indices, r (out + in) of them at every site."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters.host import base_class
from peftx.adapters.site import Site
from peftx.artifacts.peft_format import PREFIX, targets_of
from peftx.errors import ArtifactError

__all__ = ["write_shira"]


def write_shira(
    model: nn.Module, found: dict[str, list[tuple[Site, Tensor, Tensor]]]
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """(type, configuration, tensors) of sparse updates: (site, flat indices, values) by module path.

    Raises:
        ArtifactError: a site is no nn.Linear, or the format would need more entries than a weight has.
    """
    shapes: dict[str, tuple[int, int]] = {}
    entries: dict[str, tuple[Tensor, Tensor]] = {}
    for path, pieces in found.items():
        module: Any = model.get_submodule(path)
        if not issubclass(base_class(module), nn.Linear) or pieces[0][0].kind != "linear":
            raise ArtifactError(
                f"{pieces[0][0].key} is of kind {pieces[0][0].kind}, and PEFT's SHIRA adapts nn.Linear alone; exclude "
                "it, or export the merged model"
            )
        shapes[path] = module.out_features, module.in_features
        offset = [at.long() + (site.rows or (0, 0))[0] * module.in_features for site, at, _ in pieces]
        entries[path] = _distinct(torch.cat(offset), torch.cat([values for _, _, values in pieces]))
    rank = max(-(-len(at) // sum(shapes[path])) for path, (at, _) in entries.items())
    tensors: dict[str, Tensor] = {}
    for path, (at, values) in entries.items():
        out, width = shapes[path]
        count = rank * (out + width)
        if count > out * width:
            raise ArtifactError(
                f"{path} would need {count} entries of its {out} x {width} weight, because PEFT stores r (out + in) at "
                "every site; exclude it, or use a smaller rank"
            )
        if len(at) < count:  # the format has one r for all sites: zeros at entries that are free
            free = torch.ones(out * width, dtype=torch.bool, device=at.device)
            free[at] = False
            more = free.nonzero().flatten()[: count - len(at)]
            at, values = torch.cat((at, more)), torch.cat((values, values.new_zeros(len(more))))
        tensors[f"{PREFIX}{path}.shira_weight"] = values
        rows = at.div(width, rounding_mode="floor")
        tensors[f"{PREFIX}{path}.shira_indices"] = torch.stack((rows, at.remainder(width))).to(torch.int32)
    config = {
        "r": rank,
        "mask_type": "random",
        "random_seed": None,
        "init_weights": True,
        "fan_in_fan_out": False,
        "target_modules": targets_of(model, sorted(entries)),
        "modules_to_save": None,
    }
    return "SHIRA", config, tensors


def _distinct(at: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Every entry once: values at the same one are added, as applying both would."""
    unique, inverse = at.unique(return_inverse=True)
    return unique, values.new_zeros(len(unique)).index_add(0, inverse, values)
