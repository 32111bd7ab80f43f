"""Triton kernels through its interpreter, in a process of its own: values and gradients of every op, in a few cases.

``TRITON_INTERPRET=1 python -m pytest kernels/tests/interpreted`` runs everything that is there.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"
CHOSEN = "value_and_every_gradient or same_bits or two_calls or bits_of_the_reference or other_types or test_raw_op"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is published for Linux only")
def test_through_the_interpreter() -> None:
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "TRITON_DEFAULT_FP_FUSION": "1",
        "OMP_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "",
    }
    for name in ("PYTEST_XDIST_WORKER", "PEFTX_KERNELS"):
        environment.pop(name, None)
    options = ["-p", "no:cacheprovider", "-n", "0", "--tb=short", "-rA", "--sample", "-k", CHOSEN]
    if importlib.util.find_spec("xdist") is None:
        options = [option for option in options if option not in ("-n", "0")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, FOLDER],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = {line.split("::")[0] for line in done.stdout.splitlines() if line.startswith("PASSED ")}
    ops = (
        "bottleneck",
        "dora_linear",
        "dora_norm",
        "grouped_lora",
        "lora_linear",
        "snell_linear",
        "sparse_switch",
    )
    missing = [op for op in ops if not any(path.endswith(f"test_{op}.py") for path in passed)]
    assert not missing
