"""What a module imports, seen in an interpreter of its own: in this one torch is loaded long since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

__all__ = ["imports_torch", "run_fresh", "seconds_to_import"]

#: `clock()` of every program: seconds, without those in which other processes had all processors. A busy machine makes
#: nothing slow then, while sleeping, waiting for a disk and computing count. Only Linux tells; elsewhere all count.
_CLOCK = """
def clock():
    import time
    try:
        with open("/proc/self/schedstat") as file:
            waited = int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = 0.0
    return time.perf_counter() - waited
"""

_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
start = clock()
import importlib
found = {"error": ""}
try:
    for name in sys.argv[2:]:
        importlib.import_module(name)
except BaseException as error:
    found["error"] = f"{type(error).__name__}: {error}"
found |= {"torch": "torch" in sys.modules, "seconds": clock() - start}
print("\\n" + json.dumps(found))
"""


def run_fresh(program: str, *arguments: str, timeout: float = 120) -> dict[str, object]:
    """Run a program in a new interpreter with this one's search path; it prints a table as JSON on its last line.

    It has a function `clock` to tell seconds by.

    Raises:
        RuntimeError: it ended with an error.
    """
    path = json.dumps([entry for entry in sys.path if entry])
    done = subprocess.run(
        [sys.executable, "-c", _CLOCK + program, path, *arguments],
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


def seconds_to_import(module: str) -> float:
    """How long importing a module, alone, takes; what it needs included, and what other processes take away left out.

    Raises:
        RuntimeError: it cannot be imported.
    """
    return float(str(_imported(module)["seconds"]))
