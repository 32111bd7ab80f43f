"""Writing an adapter so that a reader finds the old one or the new one, whenever the writing stops.

The tensors are written whole beside the old ones, under a name that holds their hash; renaming the manifest is what
makes them the adapter; only then do they take their usual name.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors.torch import save as serialise

import peftx
from peftx.adapters.handle import Adapted
from peftx.adapters.host import base_class
from peftx.adapters.packing import packed_state
from peftx.artifacts.fingerprint import fingerprint
from peftx.artifacts.manifest import (
    MANIFEST,
    TENSORS,
    Manifest,
    SiteRecord,
    TensorRecord,
    tensor_key,
    waiting_tensors,
)
from peftx.artifacts.sharded import whole, writes
from peftx.errors import ArtifactError

__all__ = ["save"]


def save(adapted: Adapted, folder: Path | str, name: str | None = None, *, packed: bool = True) -> Path:
    """Save one adapter of a model; the base is not written.

    Of a method that packs (`peftx.adapters.packing`), the folder holds what the adapter computes with, not what is
    trained: loaded, it gives the same outputs to the last bit, and a training goes on from these values.

    Of a sharded model (FSDP2) every process must call this: the parts are gathered, and the first process writes.

    Args:
        adapted: the handle.
        folder: where to; made when missing, an adapter already there is replaced.
        name: which adapter; the active one by default.
        packed: False stores what is trained, for all methods.

    Returns:
        The folder.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    attachment = adapted.attachment(name)
    tensors, packing = _packed(adapted, attachment.name) if packed else (adapted.tensors(attachment.name), {})
    stored: dict[str, torch.Tensor] = {}
    records: list[TensorRecord] = []
    first: dict[int, str] = {}
    for (site, slot), tensor in tensors.items():
        key = tensor_key(site, slot)
        alias = first.setdefault(id(tensor), key)
        if alias == key:
            stored[key] = whole(tensor.detach()).cpu().contiguous()
        records.append(
            TensorRecord(
                site=site,
                slot=slot,
                shape=list(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                alias=None if alias == key else alias,
            )
        )
    owned = set(attachment.owned.keys)
    base = fingerprint(adapted.model, skip=owned)
    payload = serialise(stored)
    cls = base_class(adapted.model)
    manifest = Manifest(
        version=2 if packing else 1,
        peftx=peftx.__version__,
        method=attachment.method_name,
        name=attachment.name,
        config=attachment.config.model_dump(mode="json", exclude_unset=False),
        base_class=f"{cls.__module__}.{cls.__qualname__}",
        base_structure=base.structure,
        base_values=base.values,
        sites=[
            SiteRecord(
                key=site.key,
                role=site.role,
                kind=site.kind,
                shape=list(site.shape),
                rows=None if site.rows is None else list(site.rows),
                owned=site.key in owned,
            )
            for site in attachment.sites
        ],
        tensors=records,
        packing=packing,
        tensor_file_sha256=hashlib.sha256(payload).hexdigest(),
    )
    folder = Path(folder)
    if not writes(adapted.model):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, payload, manifest)
    except OSError as error:
        raise ArtifactError(
            f"the adapter cannot be written to {folder}: {error.strerror or error}"
        ) from error
    return folder


def _packed(adapted: Adapted, name: str) -> tuple[dict[tuple[str, str], torch.Tensor], dict[str, str]]:
    """An adapter's tensors, those of its packers packed, and the form of each packed site."""
    tensors, packing = adapted.tensors(name), {}
    for site, packer in adapted.packers(name).items():
        slots = [slot for at, slot in tensors if at == site]
        made = packed_state(packer, {slot: whole(tensors.pop((site, slot)).detach()) for slot in slots})
        tensors |= {(site, slot): tensor.clone() for slot, tensor in made.items()}
        if made:
            packing[site] = packer.packing
    return dict(sorted(tensors.items())), packing


def _write(folder: Path, payload: bytes, manifest: Manifest) -> None:
    waiting = folder / waiting_tensors(manifest.tensor_file_sha256)
    part = folder / f".{MANIFEST}.{os.getpid()}.part"
    try:
        waiting.write_bytes(payload)
        part.write_text(manifest.text(), encoding="utf-8")
        part.replace(folder / MANIFEST)
    except BaseException:
        waiting.unlink(missing_ok=True)
        raise
    finally:
        part.unlink(missing_ok=True)
    waiting.replace(folder / TENSORS)
    for left in folder.glob(waiting_tensors("*")):  # of writers that were stopped
        left.unlink(missing_ok=True)
