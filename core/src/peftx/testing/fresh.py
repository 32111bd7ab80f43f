"""What a module imports, seen in an interpreter of its own: in this one torch is loaded long since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

__all__ = ["imports_torch", "run_fresh", "seconds_to_import"]

_PROGRAM = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
start = time.perf_counter()
import importlib
found = {"error": ""}
try:
    for name in sys.argv[2:]:
        importlib.import_module(name)
except BaseException as error:
    found["error"] = f"{type(error).__name__}: {error}"
found |= {"torch": "torch" in sys.modules, "seconds": time.perf_counter() - start}
print("\\n" + json.dumps(found))
"""


def run_fresh(program: str, *arguments: str, timeout: float = 120) -> dict[str, object]:
    """Run a program in a new interpreter with this one's search path; it prints a table as JSON on its last line.

    Raises:
        RuntimeError: it ended with an error.
    """
    path = json.dumps([entry for entry in sys.path if entry])
    done = subprocess.run(
        [sys.executable, "-c", program, path, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=dict(os.environ),
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@cache
def _imported(module: str) -> dict[str, object]:
    found = run_fresh(_PROGRAM, module)
    if found["error"]:
        raise RuntimeError(f"{module} cannot be imported alone: {found['error']}")
    return found


def imports_torch(module: str) -> bool:
    """Whether importing a module, alone, pulls torch in.

    Raises:
        RuntimeError: it cannot be imported.
    """
    return bool(_imported(module)["torch"])


def seconds_to_import(module: str, allowed: float) -> float:
    """How long importing a module, alone, takes; what it needs included.

    A longer time than `allowed` is measured once more and the shorter one counts: a busy machine is no slow module.

    Raises:
        RuntimeError: it cannot be imported.
    """
    seconds = float(str(_imported(module)["seconds"]))
    if seconds < allowed:
        return seconds
    return min(seconds, float(str(run_fresh(_PROGRAM, module)["seconds"])))
