"""What an adapter folder says of itself: ``adapter.json`` beside ``adapter.safetensors``.

A tensor is addressed by the key of its site and its slot in the delta (`blocks.0.attn.qkv` and `A`), recorded here
and joined by ``::`` in the tensor file; nothing is ever recovered by taking names apart.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from peftx.artifacts.reading import read_json
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
#: 2 for a folder with packed tensors, which a reader of 1 has to refuse; all others are still written as 1
VERSION = 2

Size = Annotated[int, Field(ge=0, lt=2**62)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteRecord(_Strict):
    """One place the adapter changes."""

    key: str
    role: str
    kind: str
    shape: list[Size]
    rows: list[Size] | None = None
    owned: bool = False


class TensorRecord(_Strict):
    """One tensor of the adapter; `alias` is the stored tensor it shares its values with (tied parameters)."""

    site: str
    slot: str
    shape: list[Size]
    dtype: str
    alias: str | None = None


class Manifest(_Strict):
    """The whole of ``adapter.json``."""

    format: Literal["peftx-adapter"] = "peftx-adapter"
    version: int = 1
    peftx: str
    method: str
    name: str
    config: dict[str, Any]
    base_class: str
    base_structure: str
    base_values: str
    sites: list[SiteRecord]
    tensors: list[TensorRecord]
    #: site keys whose tensors are packed -> name of the form (version 2)
    packing: dict[str, str] = {}
    #: part of a file's name while it is written, so nothing but a hash will do
    tensor_file_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _once(self) -> Manifest:
        for what, keys in (
            ("site", [site.key for site in self.sites]),
            ("tensor", [tensor_key(record.site, record.slot) for record in self.tensors]),
        ):
            if len(set(keys)) < len(keys):
                raise ValueError(f"the {what} {Counter(keys).most_common(1)[0][0]!r} stands twice")
        if self.packing and self.version < 2:
            raise ValueError("it says that tensors are packed, and in version 1 none is")
        odd = self.packing.keys() - {record.site for record in self.tensors}
        if odd:
            raise ValueError(f"{min(odd)!r} is said to be packed and has no tensor")
        if any(record.alias is not None and record.site in self.packing for record in self.tensors):
            raise ValueError("a packed tensor cannot share its values with another")
        return self

    def text(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=1, exclude=None if self.packing else {"packing"}) + "\n"


def waiting_tensors(sha256: str) -> str:
    """Name of a tensor file that is written but not yet in its place."""
    return f".{TENSORS}.{sha256[:16]}.part"


def tensor_key(site: str, slot: str) -> str:
    """A tensor's key in the tensor file."""
    return f"{site}::{slot}"


def read_manifest(folder: Path) -> Manifest:
    """Read and validate an adapter folder's manifest.

    Raises:
        ArtifactError: there is none, it cannot be read, is damaged, or it comes from a newer release.
    """
    path = Path(folder) / MANIFEST
    try:
        there = path.is_file()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error}); check it") from None
    if not there:
        raise ArtifactError(
            f"{folder} holds no {MANIFEST}, so it is not a saved adapter; give the folder `save` wrote"
        )
    data = read_json(path, "a manifest")
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
