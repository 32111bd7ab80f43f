"""What an adapter folder says of itself: ``adapter.json`` beside ``adapter.safetensors``.

A tensor is addressed by the key of its site and its slot in the delta (`blocks.0.attn.qkv` and `A`), recorded here
and joined by ``::`` in the tensor file; nothing is ever recovered by taking names apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from peftx.errors import ArtifactError

__all__ = [
    "MANIFEST",
    "TENSORS",
    "VERSION",
    "Manifest",
    "SiteRecord",
    "TensorRecord",
    "read_manifest",
    "tensor_key",
    "waiting_tensors",
]

MANIFEST = "adapter.json"
TENSORS = "adapter.safetensors"
VERSION = 1
_LARGEST = 64 * 1024**2


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteRecord(_Strict):
    """One place the adapter changes."""

    key: str
    role: str
    kind: str
    shape: list[int]
    rows: list[int] | None = None
    owned: bool = False


class TensorRecord(_Strict):
    """One tensor of the adapter; `alias` is the stored tensor it shares its values with (tied parameters)."""

    site: str
    slot: str
    shape: list[int]
    dtype: str
    alias: str | None = None


class Manifest(_Strict):
    """The whole of ``adapter.json``."""

    format: Literal["peftx-adapter"] = "peftx-adapter"
    version: int = VERSION
    peftx: str
    method: str
    name: str
    config: dict[str, Any]
    base_class: str
    base_structure: str
    base_values: str
    sites: list[SiteRecord]
    tensors: list[TensorRecord]
    tensor_file_sha256: str


def waiting_tensors(sha256: str) -> str:
    """Name of a tensor file that is written but not yet in its place."""
    return f".{TENSORS}.{sha256[:16]}.part"


def tensor_key(site: str, slot: str) -> str:
    """A tensor's key in the tensor file."""
    return f"{site}::{slot}"


def read_manifest(folder: Path) -> Manifest:
    """Read and validate an adapter folder's manifest.

    Raises:
        ArtifactError: there is none, it is damaged, or it comes from a newer release.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} holds no {MANIFEST}, so it is not a saved adapter; give the folder `save` wrote"
        )
    if path.stat().st_size > _LARGEST:
        raise ArtifactError(f"{path} has {path.stat().st_size} bytes, far more than a manifest; refused")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}); the adapter is damaged, copy it again"
        ) from None
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, this peftx reads up to {VERSION}; upgrade peftx"
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ArtifactError(f"{path} is not an adapter's manifest: {where}: {first['msg'].lower()}") from None
