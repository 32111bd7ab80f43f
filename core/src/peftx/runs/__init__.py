"""Runs: one execution from configuration to record, and what can be done with its folder later.

The names load on first use: checking a run (`preflight`) needs no torch, and must stay free of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Plan": "peftx.runs.planning",
    "Reproduction": "peftx.runs.reload",
    "RunResult": "peftx.runs.result",
    "evaluate": "peftx.runs.reload",
    "execute": "peftx.runs.execution",
    "export_run": "peftx.runs.exporting",
    "import_peft": "peftx.runs.exporting",
    "peft_run": "peftx.runs.exporting",
    "predict": "peftx.runs.reload",
    "preflight": "peftx.runs.planning",
    "why_not": "peftx.runs.matching",
}

__all__ = [
    "Plan",
    "Reproduction",
    "RunResult",
    "evaluate",
    "execute",
    "export_run",
    "import_peft",
    "peft_run",
    "predict",
    "preflight",
    "why_not",
]

if TYPE_CHECKING:
    from peftx.runs.execution import execute
    from peftx.runs.exporting import export_run, import_peft, peft_run
    from peftx.runs.matching import why_not
    from peftx.runs.planning import Plan, preflight
    from peftx.runs.reload import Reproduction, evaluate, predict
    from peftx.runs.result import RunResult


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftx.runs' has no attribute {name!r}")
