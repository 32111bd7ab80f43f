"""Triton kernels compiled ahead of time, without a GPU: do they compile for every target, and what do they take?

Each module of `MODULES` has a function ``kernels()`` that yields a `Kernel` for each of its kernels, configurations and
types. Registers and spills are not in Triton's own metadata; they are read with the ``cuobjdump`` inside its wheel.

``python -m peftx_kernels.aot [--op NAME] [--capability 90] [--jobs N]`` compiles them all, prints what they take at
most, and ends with status 1 when one spills or takes more shared memory than its GPU has.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["LIMITS", "MODULES", "Kernel", "Resources", "compile_kernel", "every_kernel", "main"]

#: compute capability -> bytes of shared memory a block may have
LIMITS = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}

#: modules with a `kernels` function
MODULES: tuple[str, ...] = (
    "peftx_kernels.ops.lora_linear.triton",
    "peftx_kernels.ops.dora_linear.triton",
    "peftx_kernels.ops.snell_linear.compiled",
    "peftx_kernels.ops.grouped_lora.compiled",
    "peftx_kernels.ops.sparse_switch.triton",
    "peftx_kernels.ops.bottleneck.compiled",
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

    def fits(self, capability: int) -> bool:
        """Whether a GPU of that compute capability runs it without spilling."""
        return self.shared <= LIMITS[capability] and not self.stack and not self.local


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


def main(arguments: Sequence[str] | None = None) -> int:
    """What ``python -m peftx_kernels.aot`` does; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m peftx_kernels.aot", description=__doc__.partition("\n")[0]
    )
    ops = {module.split(".")[2]: module for module in MODULES}
    parser.add_argument("--op", action="append", choices=sorted(ops), help="of these operations alone")
    parser.add_argument("--capability", action="append", type=int, choices=sorted(LIMITS))
    parser.add_argument("--jobs", type=int, default=1, help="processes to share the work among")
    asked = parser.parse_args(arguments)
    work = [
        (ops[op], place, capability)
        for op in asked.op or ops
        for capability in asked.capability or LIMITS
        for place in range(len(list(importlib.import_module(ops[op]).kernels())))
    ]
    # a cache of its own: what is compiled is what the files say now
    with tempfile.TemporaryDirectory() as cache, _environment(TRITON_CACHE_DIR=cache):
        if asked.jobs > 1:
            with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
                wrong = _tell(pool.imap(_compiled, work, chunksize=4), len(work))
        else:
            wrong = _tell(map(_compiled, work), len(work))
    return 1 if wrong else 0


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


_Found = tuple[str, str, int, Resources | str]


def _compiled(task: tuple[str, int, int]) -> _Found:
    """Op, kernel, capability, and what it takes or why it does not compile."""
    module, place, capability = task
    kernel = list(importlib.import_module(module).kernels())[place]
    try:
        taken: Resources | str = compile_kernel(kernel, capability)
    except Exception as error:  # Triton and its assembler raise of many kinds
        taken = f"{type(error).__name__}: {error}"
    return module.split(".")[2], kernel.label, capability, taken


def _tell(found: Iterable[_Found], total: int) -> int:
    """Print a line for each op on each GPU, and those kernels that are wrong; return their number."""
    most: dict[tuple[str, int], list[Resources]] = {}
    wrong = 0
    for op, label, capability, taken in found:
        if isinstance(taken, Resources):
            most.setdefault((op, capability), []).append(taken)
        if isinstance(taken, str) or not taken.fits(capability):
            wrong += 1
            print(f"{op} sm_{capability} {label}: {taken}", flush=True)
    print(f"{'op':<14} {'GPU':<7} {'kernels':>7} {'shared memory, at most':>23} {'registers':>9}")
    for (op, capability), all_ in most.items():
        shared = f"{max(r.shared for r in all_) / 1024:.1f} of {LIMITS[capability] // 1024} KiB"
        print(f"{op:<14} sm_{capability:<4} {len(all_):>7} {shared:>23} {max(r.registers for r in all_):>9}")
    print(f"{total} compiled, {wrong} of them wrong" if wrong else f"{total} compiled, none spills")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
