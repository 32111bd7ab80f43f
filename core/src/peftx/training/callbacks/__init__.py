"""Callbacks for people who keep their own trainer: they bind the adapters to its optimizer, and save and resume.

Nothing here is needed in a bare loop, where `Adapted.bind` does it all. The names load on first use: neither library
is a dependency of peftx.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from peftx.errors import UserError

#: name -> module, and the libraries of which one must be there
_HOMES = {
    "LightningCallback": ("peftx.training.callbacks.lightning", ("lightning", "pytorch_lightning")),
    "TransformersCallback": ("peftx.training.callbacks.transformers", ("transformers",)),
}

__all__ = ["LightningCallback", "TransformersCallback"]

if TYPE_CHECKING:
    from peftx.training.callbacks.lightning import LightningCallback
    from peftx.training.callbacks.transformers import TransformersCallback


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'peftx.training.callbacks' has no attribute {name!r}")
    module, libraries = _HOMES[name]
    if not any(importlib.util.find_spec(library) for library in libraries):
        raise UserError(f"{name} needs {libraries[0]}, which is not installed: pip install {libraries[0]}")
    return getattr(importlib.import_module(module), name)
