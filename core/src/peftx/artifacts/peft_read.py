"""Reading an adapter that HF PEFT wrote: LORA, with use_rslora and use_dora, and SHIRA.

What goes where is read off the tensors, not off `target_modules`, whose rules differ from ours. Everything is checked
before the model is touched; a setting or a tensor whose meaning is not known is refused by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters.attachment import attach_to, resolve_method
from peftx.adapters.handle import Adapted
from peftx.adapters.host import root_board
from peftx.adapters.site import Site
from peftx.adapters.survey import parameter_sites, weight_sites
from peftx.artifacts.peft_format import (
    CONFIG,
    PICKLE,
    PREFIX,
    SUFFIXES,
    TENSORS,
    check_config,
    pattern_value,
)
from peftx.artifacts.reading import open_tensors, read_json
from peftx.errors import ArtifactError, near_matches

__all__ = ["from_peft"]

_SLOTS = {
    "A": "A",
    "B": "B",
    "embedding_A": "A",
    "embedding_B": "B",
    "m": "m",
    "v": "v",
    "indices": "indices",
}


def from_peft(model: nn.Module, folder: Path | str, *, name: str = "default") -> Adapted:
    """Attach an adapter that HF PEFT saved, and activate it: as core.lora, core.rslora, core.dora or core.shira.

    The model then computes what PEFT's does, in evaluation mode; it can be trained on, saved and merged like any other.
    modules_to_save become owned parameters. Build the model with as many classes as the adapter has.

    Args:
        model: the base model the adapter was trained on.
        folder: what `save_pretrained` wrote: ``adapter_config.json`` and ``adapter_model.safetensors``.
        name: the adapter's name here.

    Raises:
        ArtifactError: the folder is damaged, holds a pickle, sets something that changes what the adapter computes and
            is not known here, or does not fit the model. The model is then as it was.
    """
    folder = Path(folder)
    config = check_config(_config(folder), str(folder / CONFIG))
    reader = _Reader(model, folder, config)
    method, options, tensors = reader.plan()
    method_name, _, checked = resolve_method(method, options, {})
    before = root_board(model)
    active = before.current.names if before is not None else ()
    with torch.random.fork_rng(devices=[]):
        attach_to(model, method_name, name, checked, False, {})
    adapted = Adapted(model)
    try:
        _fill(folder, adapted.tensors(name), tensors)
    except ArtifactError:
        if adapted.remove(name) is not None:
            adapted.activate(*active)
        raise
    return adapted


def _config(folder: Path) -> Any:
    try:
        there = {name: (folder / name).is_file() for name in (CONFIG, TENSORS, PICKLE)}
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read ({error.strerror or error}); check it") from None
    if not there[CONFIG]:
        raise ArtifactError(
            f"{folder} holds no {CONFIG}, so it is no adapter of PEFT; give the folder PEFT wrote"
        )
    if not there[TENSORS] and there[PICKLE]:
        raise ArtifactError(
            f"{folder} holds {PICKLE}, a pickle, which could run any code and is not opened; load it with peft where "
            "you trust it, and save it again with safe_serialization=True"
        )
    return read_json(folder / CONFIG, "a configuration")


class _Reader:
    """One folder against one model."""

    def __init__(self, model: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
        self.model, self.folder, self.config = model, folder, config
        self.sites = {site.key: site for site in weight_sites(model) if not site.part}
        self.parameters = {site.key: site for site in parameter_sites(model)}
        self.tensors: dict[tuple[str, str], Tensor] = {}
        self.owned: list[str] = []

    def plan(self) -> tuple[str, dict[str, Any], dict[tuple[str, str], Tensor]]:
        """(method, options, tensors by site key and slot)."""
        by_site = self._read()
        if not by_site:
            raise self._bad("holds no adapted weight")
        shira = self.config["peft_type"] == "SHIRA"
        options = self._shira(by_site) if shira else self._lora(by_site)
        options |= {
            "targets": [f"re:{re.escape(key)}" for key in sorted(by_site)],
            "also_train": [f"re:{re.escape(key)}" for key in sorted(self.owned)],
        }
        if shira:
            return "core.shira", options, self.tensors
        if self._flag("use_dora"):
            return "core.dora", options | {"rank_stabilised": self._flag("use_rslora")}, self.tensors
        return ("core.rslora" if self._flag("use_rslora") else "core.lora"), options, self.tensors

    def _bad(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.folder} {what}")

    def _flag(self, name: str) -> bool:
        value = self.config.get(name, False)
        if not isinstance(value, bool):
            raise self._bad(f"sets {name} to {str(value)[:40]!r}, expected true or false")
        return value

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
            raise self._bad(f"sets {name} to {str(value)[:40]!r}, expected a positive number")
        return value

    def _table(self, name: str) -> Mapping[str, Any]:
        value = self.config.get(name) or {}
        if not isinstance(value, dict):
            raise self._bad(f"sets {name} to {str(value)[:40]!r}, expected a table")
        return value

    # --- tensors ----------------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, dict[str, Tensor]]:
        """Adapter tensors by site key and slot; what modules_to_save holds goes to `owned` at once."""
        with open_tensors(self.folder / TENSORS) as file:
            tensors = file.read()
        by_site: dict[str, dict[str, Tensor]] = {}
        self._leave_output_projections(tensors)
        for key, value in sorted(tensors.items()):
            if not key.startswith(PREFIX):
                raise self._bad(
                    f"holds {key[:100]!r}, which does not begin with {PREFIX} as PEFT's tensors do"
                )
            if value.is_floating_point() and not value.isfinite().all():
                raise self._bad(f"holds NaN or Inf in {key[:100]!r}; nothing was loaded")
            path, slot = self._split(key.removeprefix(PREFIX))
            if slot:
                by_site.setdefault(self._site(path).key, {})[slot] = value
            else:
                self._plain(path, value)
        return by_site

    def _leave_output_projections(self, tensors: dict[str, Tensor]) -> None:
        """Take away the zero update PEFT keeps for a packed attention's output projection; refuse any other."""
        marker = ".base_layer.out_proj.lora_"
        for key in [key for key in tensors if marker in key]:
            if key.endswith(".lora_B.weight") and bool(tensors[key].any()):
                path = key.removeprefix(PREFIX).partition(marker)[0]
                raise self._bad(
                    f"adapts the output projection of {path[:100]!r}, a packed attention: PEFT 0.21 applies that "
                    "update twice and a later one may not, so what the file means is not certain; merge it with the "
                    "version that wrote it"
                )
        for key in [key for key in tensors if marker in key]:
            del tensors[key]

    def _split(self, name: str) -> tuple[str, str]:
        for suffix, slot in SUFFIXES.items():
            if name.endswith(suffix):
                return name.removesuffix(suffix), slot
        if ".lora_" in name or ".shira_" in name:
            raise self._bad(f"holds {name[:100]!r}, whose meaning is not known here")
        return name, ""

    def _site(self, path: str) -> Site:
        found = self.sites.get(path) or self.sites.get(f"{path}.in_proj")
        if found is None:
            near = near_matches(path, self.sites)
            raise self._bad(
                f"adapts {path[:100]!r}, which is no layer of this model that can be adapted.{near}"
            )
        module: Any = self.model.get_submodule(found.module)
        if found.kind.startswith("conv"):
            dilated = any(step != 1 for step in module.dilation)
            if found.groups != 1 or dilated or module.padding_mode != "zeros":
                raise self._bad(
                    f"adapts {path}, a convolution with groups, dilation or a padding mode, for which PEFT's factors "
                    "mean another update than ours; it is not read"
                )
        if found.kind == "embedding" and module.max_norm is not None:
            raise self._bad(f"adapts {path}, a table that limits its rows, which PEFT does before the update")
        return found

    def _plain(self, name: str, value: Tensor) -> None:
        """A tensor under its plain path: of modules_to_save, or the table PEFT keeps with an adapted embedding."""
        base = self._base(name.replace(".base_layer.", "."))
        if (
            base is not None
            and base.shape == value.shape
            and torch.equal(base.detach().cpu(), value.to(base.dtype))
        ):
            if self._is_saved(name) and name in self.parameters:
                self._own(name, value)
            return
        if name.rpartition(".")[2] == "num_batches_tracked":
            return
        if not self._is_saved(name):
            raise self._bad(
                f"holds {name[:100]!r}, which is of no module of modules_to_save and not the base's value"
            )
        if name not in self.parameters:
            what = (
                "a statistic that differs from the base's"
                if base is not None
                else "no parameter of this model"
            )
            raise self._bad(f"holds {name[:100]!r} in modules_to_save, {what}; it cannot be taken over")
        self._own(name, value)

    def _own(self, name: str, value: Tensor) -> None:
        site = self.parameters[name]
        if tuple(value.shape) != site.shape:
            raise self._bad(
                f"has {name} of shape {tuple(value.shape)}, this model's is {site.shape}: build the model with the "
                "same number of classes"
            )
        self._check_kind(name, value)
        self.owned.append(name)
        self.tensors[name, "value"] = value

    def _base(self, name: str) -> Tensor | None:
        path, _, last = name.rpartition(".")
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            return None
        found = module._parameters.get(last)
        return module._buffers.get(last) if found is None else found

    def _is_saved(self, name: str) -> bool:
        saved = self.config.get("modules_to_save") or []
        if not isinstance(saved, list) or not all(isinstance(one, str) for one in saved):
            raise self._bad("sets modules_to_save to something that is no list of names")
        parts = name.split(".")
        paths = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return any(path.endswith(one) for path in paths for one in saved if one)

    def _check_kind(self, key: str, value: Tensor) -> None:
        if not value.is_floating_point():
            raise self._bad(f"has {key} of type {value.dtype}, expected floating-point numbers")

    # --- LORA and SHIRA ----------------------------------------------------------------------------------------------

    def _lora(self, by_site: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
        dora = self._flag("use_dora")
        wanted = {"A", "B", "m"} if dora else {"A", "B"}
        ranks: dict[str, int] = {}
        alphas: dict[str, float] = {}
        for key, parts in by_site.items():
            site = self.sites[key]
            slots = {_SLOTS[slot]: value for slot, value in parts.items()}
            odd = sorted(wanted ^ slots.keys())
            table = site.kind == "embedding"
            if odd or any(slot.startswith("embedding") is not table for slot in parts if slot != "m"):
                lacks = f"lacks {odd[0]} of" if odd and odd[0] in wanted else "holds tensors that do not fit"
                raise self._bad(f"{lacks} {key}; partial adapters are not loaded")
            path = site.module if key.endswith(".in_proj") else key
            path = (
                path.rpartition(".")[0]
                if site.kind == "packed_attention" and path.endswith(".out_proj")
                else path
            )
            rank = pattern_value(self._table("rank_pattern"), path, self.config.get("r", 8))
            ranks[key] = int(self._number("r", rank))
            alpha = pattern_value(self._table("alpha_pattern"), path, self.config.get("lora_alpha", 8))
            alphas[key] = float(self._number("lora_alpha", alpha))
            self._factors(site, slots, ranks[key], dora=dora)
        rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
        dropout = self.config.get("lora_dropout") or 0.0
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise self._bad(
                f"sets lora_dropout to {str(dropout)[:40]!r}, expected a number from 0 to below 1"
            )
        return {
            "rank": rank,
            "alpha": alpha,
            "rank_pattern": {f"^{re.escape(k)}": own for k, own in ranks.items() if own != rank},
            "alpha_pattern": {f"^{re.escape(k)}": own for k, own in alphas.items() if own != alpha},
            # dropout acts in training alone, and cannot act where a layer is read without being called
            "dropout": float(dropout) if all(self.sites[key].product for key in by_site) else 0.0,
        }

    def _factors(self, site: Site, slots: dict[str, Tensor], rank: int, *, dora: bool) -> None:
        out, kernel = site.shape[0], site.shape[2:]
        shapes = {"A": (rank, *site.shape[1:]), "B": (out, rank, *(1,) * len(kernel)), "m": (out,)}
        if dora and kernel:
            shapes["m"] = (1, out, *(1,) * len(kernel))
        for slot, value in slots.items():
            if tuple(value.shape) != shapes[slot]:
                raise self._bad(
                    f"has {slot} of {site.key} of shape {tuple(value.shape)}, expected {shapes[slot]}"
                )
            self._check_kind(f"{slot} of {site.key}", value)
            self.tensors[site.key, slot] = value.reshape(-1) if slot == "m" else value.flatten(1)

    def _shira(self, by_site: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
        rank = int(self._number("r", self.config.get("r", 32)))
        for key, parts in by_site.items():
            site = self.sites[key]
            if site.kind != "linear" or parts.keys() != {"v", "indices"}:
                raise self._bad(f"holds tensors that do not fit {key}; partial adapters are not loaded")
            values, indices = parts["v"], parts["indices"]
            out, width = site.shape
            count = rank * (out + width)
            if tuple(values.shape) != (count,) or tuple(indices.shape) != (2, count) or count > out * width:
                raise self._bad(
                    f"has {tuple(values.shape)} values and {tuple(indices.shape)} indices at {key}, expected {count} "
                    f"and (2, {count})"
                )
            self._check_kind(f"the values of {key}", values)
            at = indices.to(torch.int64)  # written as float32 on one system, of which int32 are a part
            if bool((at.to(torch.float64) != indices.to(torch.float64)).any()):
                raise self._bad(f"has indices of {key} that are no whole numbers")
            if bool((at < 0).any() | (at[0] >= out).any() | (at[1] >= width).any()):
                raise self._bad(f"has indices of {key} outside its {out} x {width} weight")
            flat = at[0] * width + at[1]
            if len(flat.unique()) < len(flat):
                raise self._bad(f"has an index of {key} twice")
            self.tensors[key, "v"] = values
            self.tensors[key, "indices"] = flat
        return {"rank": rank}


def _fill(folder: Path, here: dict[tuple[str, str], Tensor], tensors: dict[tuple[str, str], Tensor]) -> None:
    odd = sorted(here.keys() ^ tensors.keys())
    if odd:
        site, slot = odd[0]
        raise ArtifactError(f"{folder} does not fit this model: {slot} of {site} has no counterpart")
    for (site, slot), value in here.items():
        if value.shape != tensors[site, slot].shape:
            found = tuple(tensors[site, slot].shape)
            raise ArtifactError(
                f"{folder}: {slot} of {site} has shape {found}, expected {tuple(value.shape)}"
            )
    with torch.no_grad():
        for key, value in here.items():
            value.copy_(tensors[key])
