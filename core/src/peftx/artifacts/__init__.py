"""Saved adapters: safetensors and a manifest, written whole and read strictly. Never pickle."""

from __future__ import annotations

from peftx.artifacts.fingerprint import Fingerprint, fingerprint
from peftx.artifacts.load import load
from peftx.artifacts.manifest import MANIFEST, TENSORS, Manifest, read_manifest
from peftx.artifacts.save import save

__all__ = ["MANIFEST", "TENSORS", "Fingerprint", "Manifest", "fingerprint", "load", "read_manifest", "save"]
