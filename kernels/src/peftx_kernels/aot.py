"""Triton kernels compiled ahead of time, without a GPU: do they compile for every target, and what do they take?

Each ``ops/*/triton.py`` has a function ``kernels()`` that yields a `Kernel` for each of its kernels, configurations and
types. Registers and spills are not in Triton's own metadata; they are read with the ``cuobjdump`` inside its wheel.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["LIMITS", "MODULES", "Kernel", "Resources", "compile_kernel", "every_kernel"]

#: compute capability -> bytes of shared memory a block may have
LIMITS = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}

#: modules with a `kernels` function
MODULES: tuple[str, ...] = (
    "peftx_kernels.ops.lora_linear.triton",
    "peftx_kernels.ops.grouped_lora.compiled",
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel in one configuration for one choice of types.

    `function`: the ``@triton.jit`` function. `types`: its arguments in order, such as ``*bf16``, ``i32``, ``fp32``, or
    ``constexpr`` for those in `constants`. `divisible`: arguments the launcher knows to be multiples of 16 (pointers,
    row lengths); compile the same kernel without them as well, since real calls may have neither.
    """

    function: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    divisible: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 2

    @property
    def label(self) -> str:
        """Name, types of the pointers and configuration, for a test's name."""
        pointers = "-".join(t[1:] for t in self.types.values() if t.startswith("*"))
        constants = ",".join(f"{key}={value}" for key, value in self.constants.items())
        aligned = "aligned" if self.divisible else "any"
        return f"{self.function.__name__}[{pointers}][{constants}][{self.num_warps}w{self.num_stages}s][{aligned}]"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel takes: bytes of shared memory a block, registers and spilled bytes a thread."""

    shared: int
    registers: int
    stack: int
    local: int


def every_kernel() -> Iterator[Kernel]:
    """Every kernel of the package, in every configuration."""
    for module in MODULES:
        yield from importlib.import_module(module).kernels()


def compile_kernel(kernel: Kernel, capability: int) -> Resources:
    """Compile for a GPU of that compute capability (80, 90, 100) and return what the machine code takes.

    Not in a process where Triton's interpreter is on.

    Raises:
        RuntimeError: it does not compile; or cuobjdump is missing or says nothing.
    """
    # later releases of Triton change the default: what is compiled here must be what runs
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(kernel.types)
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in kernel.divisible}
    source = ASTSource(
        kernel.function, dict(kernel.types), constexprs=dict(kernel.constants), attrs=attributes
    )
    options = {"num_warps": kernel.num_warps, "num_stages": kernel.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage = _usage(compiled.asm["cubin"])
    return Resources(
        # what cuobjdump counts as shared is static; Triton's is the dynamic part
        shared=compiled.metadata.shared + usage["SHARED"],
        registers=usage["REG"],
        stack=usage["STACK"],
        local=usage["LOCAL"],
    )


def _usage(cubin: bytes) -> dict[str, int]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        done = subprocess.run(
            [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=False
        )
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", done.stdout)}
    if found.keys() != {"REG", "STACK", "SHARED", "LOCAL"}:
        raise RuntimeError(f"{tool} told no resources of a kernel: {done.stdout} {done.stderr}".strip())
    return found
