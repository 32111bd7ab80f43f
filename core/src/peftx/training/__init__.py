"""Training: one loop over one batch contract, the same for every method and every baseline row.

The names load on first use: the progress protocol is also the command line's, which must start without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Backend": "peftx.training.backend",
    "Fit": "peftx.training.engine",
    "PeakMemory": "peftx.training.memory",
    "Progress": "peftx.training.progress",
    "fit": "peftx.training.engine",
    "generator": "peftx.training.seeds",
    "seed_all": "peftx.training.seeds",
}

__all__ = ["Backend", "Fit", "PeakMemory", "Progress", "fit", "generator", "seed_all"]

if TYPE_CHECKING:
    from peftx.training.backend import Backend
    from peftx.training.engine import Fit, fit
    from peftx.training.memory import PeakMemory
    from peftx.training.progress import Progress
    from peftx.training.seeds import generator, seed_all


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftx.training' has no attribute {name!r}")
