"""Tests of Triton kernels through its interpreter, which has to be on before Triton is imported.

`kernels/tests/test_interpreter.py` runs each file here in a process of its own; elsewhere they are not collected.
By hand: ``TRITON_INTERPRET=1 PEFTX_KERNELS=triton python -m pytest kernels/tests/interpreted``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The same random numbers for every test, one thread, and the kernels chosen."""
    from peftx_kernels import use

    torch.manual_seed(0)
    torch.set_num_threads(1)
    use("triton")
    yield
    use(None)
