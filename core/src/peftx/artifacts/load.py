"""Reading an adapter onto a model: everything is checked before the model is touched, and nothing is partial."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from peftx.adapters.attachment import Attachment, attach_to, plan_of, resolve_method
from peftx.adapters.handle import Adapted
from peftx.adapters.host import base_class, root_board
from peftx.adapters.packing import Packer, layout_of
from peftx.artifacts.fingerprint import fingerprint
from peftx.artifacts.manifest import TENSORS, Manifest, read_manifest, tensor_key, waiting_tensors
from peftx.artifacts.reading import TensorFile, open_tensors
from peftx.errors import ArtifactError, PeftxError, SelectionError

__all__ = ["load"]

#: by site key and slot
Tensors = dict[tuple[str, str], torch.Tensor]

BaseCheck = Literal["values", "structure", "off"]


def load(
    model: nn.Module,
    folder: Path | str,
    *,
    name: str | None = None,
    check_base: BaseCheck = "values",
    recompute_activations: bool = False,
) -> Adapted:
    """Attach a saved adapter to its base model and activate it.

    Args:
        model: the base, unchanged since (a parameter the adapter owns whole, such as a head, may differ).
        folder: what `save` wrote.
        name: the adapter's name here; the saved one by default.
        check_base: "values" compares sampled base weights, "structure" only names and shapes, "off" nothing.
        recompute_activations: as in `peftx.attach`.

    Raises:
        ArtifactError: the folder is damaged or incomplete, or belongs to another base.
        PluginError, UnknownNameError: the method is not installed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    tensors = _read_tensors(folder, manifest)
    method_name, method, config = resolve_method(manifest.method, manifest.config, {})
    try:
        plan, owned = plan_of(model, method_name, method, config)
    except SelectionError as error:
        here = base_class(model).__name__
        raise ArtifactError(
            f"{folder} was trained on a {manifest.base_class} and does not fit this {here}: {error}"
        ) from error
    _check_sites(folder, manifest, Attachment("", method_name, method, config, plan, owned))
    _check_base(folder, manifest, model, set(owned.keys), check_base)
    name = name or manifest.name
    before = root_board(model)
    active = before.current.names if before is not None else ()
    with torch.random.fork_rng(devices=[]):  # adapters are made on the CPU
        attach_to(model, method_name, name, config, recompute_activations, {}, planned=(plan, owned))
    adapted = Adapted(model)
    try:
        _fill(folder, adapted, name, tensors, manifest)
    except BaseException:  # a form is unpacked by its method, whose mistakes leave no adapter behind either
        if adapted.remove(name) is not None:
            adapted.activate(*active)
        raise
    return adapted


def _read_tensors(folder: Path, manifest: Manifest) -> Tensors:
    path = folder / TENSORS
    waiting = folder / waiting_tensors(manifest.tensor_file_sha256)
    if waiting.is_file():  # the writer was stopped after the manifest, before the last rename
        path = waiting
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {TENSORS}; the adapter is incomplete, copy it again")
    with open_tensors(path) as file:
        _check_entries(file, manifest)
        tensors = file.read(manifest.tensor_file_sha256)
    for record in manifest.tensors:
        if record.alias is not None:
            if record.alias not in tensors:
                raise ArtifactError(
                    f"{folder}: {record.site} shares its values with {record.alias}, which is not there"
                )
            tensors[tensor_key(record.site, record.slot)] = tensors[record.alias]
    return {(r.site, r.slot): tensors[tensor_key(r.site, r.slot)] for r in manifest.tensors}


def _check_entries(file: TensorFile, manifest: Manifest) -> None:
    """The header against the manifest, before the tensors are read."""
    expected = {tensor_key(r.site, r.slot): r for r in manifest.tensors if r.alias is None}
    missing, extra = (
        sorted(expected.keys() - file.entries.keys()),
        sorted(file.entries.keys() - expected.keys()),
    )
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"also holds {extra[0]}"
        raise ArtifactError(
            f"{file.path} {what}, against its manifest ({len(missing)} missing, {len(extra)} too many); partial "
            "adapters are not loaded"
        )
    for key, record in expected.items():
        entry = file.entries[key]
        if list(entry.shape) != record.shape or str(entry.dtype) != f"torch.{record.dtype}":
            raise ArtifactError(
                f"{file.path}: {key} is {entry.dtype} {entry.shape}, its manifest says {record.dtype} "
                f"{tuple(record.shape)}"
            )


def _check_sites(folder: Path, manifest: Manifest, here: Attachment) -> None:
    wanted = {(s.key, tuple(s.shape)) for s in manifest.sites}
    found = {(s.key, tuple(s.shape)) for s in here.sites}
    missing = sorted(wanted - found)
    if missing:
        key, shape = missing[0]
        raise ArtifactError(
            f"{folder} adapts {key} with shape {shape}, which this model does not have ({len(missing)} such sites); "
            f"it was trained on {manifest.base_class}: build that model, with the same number of classes"
        )
    extra = sorted(found - wanted)
    if extra:
        raise ArtifactError(
            f"here {manifest.method} would also adapt {extra[0][0]}, which {folder} does not hold ({len(extra)} such "
            "sites); load it onto the model it was trained on"
        )


def _check_base(folder: Path, manifest: Manifest, model: nn.Module, skip: set[str], check: BaseCheck) -> None:
    if check == "off":
        return
    here = fingerprint(model, skip=skip)
    if here.structure != manifest.base_structure:
        raise ArtifactError(
            f"{folder} was trained on a {manifest.base_class} with other parameters than this model's (names or shapes "
            "differ); build the same model"
        )
    if check == "values" and here.values != manifest.base_values:
        raise ArtifactError(
            f"{folder} was trained on other base weights, or on the same in another dtype; load those weights first, "
            "or pass check_base='structure' if you mean it"
        )


def _fill(folder: Path, adapted: Adapted, name: str, tensors: Tensors, manifest: Manifest) -> None:
    state = _unpacked(folder, adapted, name, tensors, manifest)
    wanted = adapted.tensors(name)
    if wanted.keys() != state.keys():
        odd = tensor_key(*min(wanted.keys() ^ state.keys()))
        raise ArtifactError(
            f"{folder} was written by another version of {manifest.method}: its tensors differ, {odd} among them"
        )
    for (site, slot), value in wanted.items():
        saved = state[site, slot]
        if value.shape != saved.shape and not adapted.fit(name, site, slot, tuple(saved.shape)):
            raise ArtifactError(
                f"{folder}: {tensor_key(site, slot)} has shape {tuple(saved.shape)}, expected {tuple(value.shape)} here"
            )
    with torch.no_grad():
        for place, value in adapted.tensors(name).items():
            value.copy_(state[place])


def _unpacked(folder: Path, adapted: Adapted, name: str, tensors: Tensors, manifest: Manifest) -> Tensors:
    """The state that a folder's tensors stand for."""
    packers, state = adapted.packers(name), dict(tensors)
    for site, form in manifest.packing.items():
        packer = packers.get(site)
        if packer is None or packer.packing != form:
            known = f"packs it as {packer.packing!r}" if packer else "does not pack it"
            raise ArtifactError(
                f"{folder} holds {site} packed as {form!r}, and the {manifest.method} installed here {known}; install "
                "the version that wrote it"
            )
        stored = {slot: state.pop((at, slot)) for at, slot in tensors if at == site}
        here = {slot: tensor for (at, slot), tensor in adapted.tensors(name).items() if at == site}
        _check_layout(folder, site, packer, stored, here)
        try:
            made = packer.unpack(stored)
        except PeftxError as error:
            raise ArtifactError(f"{folder}: {site} cannot be unpacked: {error}") from error
        state |= {(site, slot): tensor for slot, tensor in made.items()}
    return state


def _check_layout(
    folder: Path, site: str, packer: Packer, stored: dict[str, torch.Tensor], here: dict[str, torch.Tensor]
) -> None:
    """Refuse packed tensors that this site would not have written; what may change its shape is left to `unpack`."""
    if getattr(packer, "elastic", ()):
        return
    wanted = layout_of(packer, here)
    found = {slot: (tensor.dtype, tuple(tensor.shape)) for slot, tensor in stored.items()}
    if wanted.keys() != found.keys():
        odd = min(wanted.keys() ^ found.keys())
        raise ArtifactError(
            f"{folder}: the packed tensors of {site} are not those of {packer.packing!r} ({odd} among them); the "
            "adapter is damaged, copy it again"
        )
    for slot, said in found.items():
        if said != wanted[slot]:
            raise ArtifactError(
                f"{folder}: {tensor_key(site, slot)} is {said[0]} {said[1]}, expected {wanted[slot][0]} "
                f"{wanted[slot][1]} here"
            )
