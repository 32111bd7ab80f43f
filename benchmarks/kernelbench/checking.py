"""Before anything is timed: is it right? Values and every gradient against the reference in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import peftx_kernels
from kernelbench.cases import Case, checks
from peftx_kernels.testing import TOLERANCES, errors

__all__ = ["check", "check_switch", "tiers_here"]


def tiers_here(op: str) -> tuple[str, ...]:
    """The implementations that are held against the reference: what `auto` runs, and the kernels where they can run."""
    peftx_kernels.use("auto")
    by_call = peftx_kernels.tiers()[op].by_call
    return ("auto", "triton") if by_call else ("auto",)


def check(op: str, device: torch.device) -> Iterator[tuple[Case, str, torch.dtype, float, float]]:
    """Yield (case, implementation, type, the worst error over its tolerance, ...and that tolerance of values).

    An error over 1 is wrong. Gradients may have twice the error of values.
    """
    types = [torch.float32, torch.bfloat16] + [torch.float16] * (device.type == "cuda")
    for tier in tiers_here(op):
        peftx_kernels.use(f"auto,{op}={tier}")
        for case in checks(op):
            for dtype in types:
                torch.manual_seed(0)
                found = errors(case.ours, case.reference, case.tensors(dtype, device))
                limit = TOLERANCES[dtype]
                worst = max(error / (limit if name == "y" else 2 * limit) for name, error in found.items())
                yield case, tier, dtype, worst, limit
    peftx_kernels.use("auto")


def check_switch(device: torch.device) -> bool:
    """Whether sparse_switch writes what the reference writes and takes it out again, bit for bit, here."""
    from peftx_kernels import SparseTable, sparse_switch

    results = []
    for tier in (*tiers_here("sparse_switch"), "reference"):
        peftx_kernels.use(f"auto,sparse_switch={tier}")
        torch.manual_seed(0)
        weights = [torch.randn(shape, device=device).bfloat16() for shape in ((1,), (63, 65), (257, 768))]
        before = [weight.clone() for weight in weights]
        made = []
        for _ in range(2):
            index = [torch.rand(w.numel(), device=device).lt(0.3).nonzero().flatten() for w in weights]
            made.append(SparseTable(weights, index, [torch.randn(len(i), device=device) for i in index]))
        states = []
        for off, on in zip((None, *made), (*made, None), strict=True):
            sparse_switch(off, on)
            states.append([weight.clone() for weight in weights])
        if not all(torch.equal(one, two) for one, two in zip(before, weights, strict=True)):
            return False
        results.append(states)
    peftx_kernels.use("auto")
    return all(
        torch.equal(one, two)
        for states in results
        for ours, right in zip(states, results[-1], strict=True)
        for one, two in zip(ours, right, strict=True)
    )
