"""peftx: parameter-efficient fine-tuning for every domain, as plugins.

The names below load on first use, so that `import peftx` costs nothing and never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_HOMES = {
    "Adapted": "peftx.adapters",
    "adapted": "peftx.adapters",
    "attach": "peftx.adapters",
    "explain": "peftx.adapters",
    "RunConfig": "peftx.config.run",
    "PeftxError": "peftx.errors",
    "UserError": "peftx.errors",
    "get_registry": "peftx.plugins",
}
_ROOMS = ("adapters", "artifacts", "config", "data", "errors", "plugins", "runs", "tasks")

__all__ = [
    "Adapted",
    "PeftxError",
    "RunConfig",
    "UserError",
    "__version__",
    "adapted",
    "attach",
    "explain",
    "get_registry",
]

if TYPE_CHECKING:
    from peftx.adapters import Adapted, adapted, attach, explain
    from peftx.config.run import RunConfig
    from peftx.errors import PeftxError, UserError
    from peftx.plugins import get_registry


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"peftx.{name}")
    raise AttributeError(f"module 'peftx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
