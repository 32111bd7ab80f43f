"""Kernels as machine code for three generations of GPUs, without one.

Here every kernel in one of its configurations; ``python -m peftx_kernels.aot`` compiles all of them for all.
"""

from __future__ import annotations

import importlib
import importlib.util
from itertools import groupby

import pytest

from peftx_kernels import aot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="Triton is published for Linux only"
    ),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test: what is compiled is what is in the tree."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))


@pytest.mark.parametrize("module", aot.MODULES, ids=lambda name: name.split(".")[-2])
def test_it_fits(module: str) -> None:
    found = list(importlib.import_module(module).kernels())
    labels = [kernel.label for kernel in found]
    assert found and len(set(labels)) == len(labels)
    wrong = []
    by_function = groupby(sorted(found, key=lambda k: k.function.__name__), lambda k: k.function.__name__)
    for place, (_, group) in enumerate(by_function):
        configurations = list(group)
        kernel = configurations[place % len(configurations)]
        capability = list(aot.LIMITS)[place % len(aot.LIMITS)]
        taken = aot.compile_kernel(kernel, capability)
        if not taken.fits(capability):
            wrong.append(f"{kernel.label} sm_{capability}: {taken}")
    assert not wrong, "\n".join(wrong)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("peftx_kernels.ops.grouped_lora.compiled")
    few = list(module.kernels())[:2]
    monkeypatch.setattr(module, "kernels", lambda: iter(few))
    arguments = ["--op", "grouped_lora", "--capability", "80", "--capability", "90"]
    assert aot.main(arguments) == 0
    table = capsys.readouterr().out
    assert table.endswith("4 compiled, none spills\n") and "sm_90" in table and "of 227 KiB" in table
    monkeypatch.setitem(aot.LIMITS, 80, 1024)
    assert aot.main(arguments) == 1
    told = capsys.readouterr().out
    assert few[0].label in told and told.endswith("4 compiled, 2 of them wrong\n")


def test_what_does_not_compile_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("peftx_kernels.ops.grouped_lora.compiled")
    first = next(module.kernels())
    types = dict.fromkeys(first.types, "*no_such_type")
    broken = aot.Kernel(first.function, types, first.constants, (), first.num_warps, first.num_stages)
    monkeypatch.setattr(module, "kernels", lambda: iter([broken]))
    assert aot.main(["--op", "grouped_lora", "--capability", "90"]) == 1
    assert "1 compiled, 1 of them wrong" in capsys.readouterr().out
