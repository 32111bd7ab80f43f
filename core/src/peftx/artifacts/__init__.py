"""Saved adapters: safetensors and a manifest, written whole and read strictly, never pickle; and merged models."""

from __future__ import annotations

from peftx.artifacts.export import FORMS, Export, export_merged, form_of, write_model
from peftx.artifacts.fingerprint import Fingerprint, fingerprint
from peftx.artifacts.fuse import fuse
from peftx.artifacts.load import load
from peftx.artifacts.manifest import MANIFEST, TENSORS, Manifest, read_manifest
from peftx.artifacts.merge import TOLERANCES, MergeReport, merge
from peftx.artifacts.peft_read import from_peft
from peftx.artifacts.peft_write import to_peft
from peftx.artifacts.save import save

__all__ = [
    "FORMS",
    "MANIFEST",
    "TENSORS",
    "TOLERANCES",
    "Export",
    "Fingerprint",
    "Manifest",
    "MergeReport",
    "export_merged",
    "fingerprint",
    "form_of",
    "from_peft",
    "fuse",
    "load",
    "merge",
    "read_manifest",
    "save",
    "to_peft",
    "write_model",
]
