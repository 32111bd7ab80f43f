"""Benchmarks: a suite as a grid of runs, carried out by several processes, stopped and continued.

The names load on first use. Nothing here imports torch but the counting of parameters for a budget, and the processes
that train.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Bench": "peftx.bench.running",
    "Outcome": "peftx.bench.outcome",
    "Request": "peftx.bench.request",
    "find_suite": "peftx.bench.suites",
    "prepare": "peftx.bench.running",
    "run": "peftx.bench.running",
    "write_page": "peftx.bench.page",
}

__all__ = ["Bench", "Outcome", "Request", "find_suite", "prepare", "run", "write_page"]

if TYPE_CHECKING:
    from peftx.bench.outcome import Outcome
    from peftx.bench.page import write_page
    from peftx.bench.request import Request
    from peftx.bench.running import Bench, prepare, run
    from peftx.bench.suites import find_suite


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftx.bench' has no attribute {name!r}")
