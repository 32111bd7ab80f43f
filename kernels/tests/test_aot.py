"""Every kernel in every configuration as machine code for three generations of GPUs, without one."""

from __future__ import annotations

import importlib
import importlib.util
import os

import pytest

from peftx_kernels import aot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="Triton is published for Linux only"
    ),
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of this session: what is compiled is what is in the tree."""
    os.environ["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))


@pytest.mark.parametrize("capability", aot.LIMITS)
@pytest.mark.parametrize("module", aot.MODULES, ids=lambda name: name.split(".")[-2])
def test_it_fits(module: str, capability: int) -> None:
    found = list(importlib.import_module(module).kernels())
    labels = [kernel.label for kernel in found]
    assert found and len(set(labels)) == len(labels)
    wrong = []
    for kernel in found:
        taken = aot.compile_kernel(kernel, capability)
        if taken.shared > aot.LIMITS[capability] or taken.stack or taken.local:
            wrong.append(f"{kernel.label}: {taken}")
    assert not wrong, "\n".join(wrong)
