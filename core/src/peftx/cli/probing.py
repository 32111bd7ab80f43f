"""Imports tried in a process of their own, so that `peftx doctor` can report what a broken one says at its
root."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Probe", "probe_all"]

TIMEOUT = 180.0

# The root of an exception chain is what is wrong: transformers says "Could not import module 'ViTModel'" when
# torchaudio was built for another CUDA.
_PROGRAM = """
import importlib, json, sys, time
start = time.perf_counter()
facts = {}
try:
    module = importlib.import_module(sys.argv[1])
    EXTRA
    out = {"ok": True, "version": str(getattr(module, "__version__", "")), "facts": facts}
except BaseException as error:
    missing = isinstance(error, ModuleNotFoundError) and error.name == sys.argv[1].partition(".")[0]
    root = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__
    text = " ".join(str(root).split())
    out = {"ok": False, "missing": missing, "cause": f"{type(root).__name__}: {text}"[:400]}
out["seconds"] = time.perf_counter() - start
out["torch"] = "torch" in sys.modules
print("\\n" + json.dumps(out))
"""

_EXTRA = {
    "torch": "facts = {'threads': module.get_num_threads(), 'cuda': module.version.cuda, "
    "'devices': [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())]}",
    "transformers": "module.ViTModel",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """What an import in a fresh process came to. `missing`: the module is not installed, which may be
    fine."""

    module: str
    ok: bool
    missing: bool = False
    version: str = ""
    cause: str = ""
    seconds: float = 0.0
    torch: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def probe_all(modules: Iterable[str], timeout: float = TIMEOUT) -> dict[str, Probe]:
    """Import each module in a process of its own and return what came of it.

    Two at a time: each may hold torch, and more of them would drive a small machine into its swap.
    """
    names = list(modules)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(names, pool.map(lambda name: _probe(name, timeout), names), strict=True))


def _probe(name: str, timeout: float) -> Probe:
    program = _PROGRAM.replace("EXTRA", _EXTRA.get(name, "pass"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(name, ok=False, cause=f"the import did not end within {timeout:.0f} s")
    try:
        return Probe(name, **json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        return Probe(name, ok=False, cause=f"the import ended the process with status {done.returncode}")
