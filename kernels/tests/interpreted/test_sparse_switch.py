"""Sparse switching by the kernel, through Triton's interpreter: the bits of the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from peftx_kernels import KernelError, SparseTable, sparse_switch, use
from peftx_kernels.ops.sparse_switch import triton

SHAPES = ((1,), (63, 65), (257, 16), (3, 3), (40, 30))


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library form must not stand in for the kernel; memory that nothing was written to holds NaN."""
    monkeypatch.setattr("peftx_kernels.ops.sparse_switch.op.sparse_switch", None)
    plain = Tensor.new_empty

    def new_empty(self: Tensor, *size: Any, **options: Any) -> Tensor:
        made = plain(self, *size, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(Tensor, "new_empty", new_empty)


def weights(*dtypes: torch.dtype) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(shape).to(dtypes[at % len(dtypes)]) for at, shape in enumerate(SHAPES)]


def table(targets: list[Tensor], seed: int, dtype: torch.dtype | None = None, **options: Any) -> SparseTable:
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.rand(t.numel(), generator=generator).lt(0.4).nonzero().flatten() for t in targets]
    chosen[-1] = torch.arange(targets[-1].numel())  # more than one program
    chosen[-2] = chosen[-2][:0]
    values = [torch.randn(len(i), generator=generator).to(dtype or torch.float32) for i in chosen]
    return SparseTable(targets, chosen, values, **options)


def steps(targets: list[Tensor], *tables: SparseTable) -> list[list[Tensor]]:
    """On, to the next, and off: the weights after each."""
    found = []
    for off, on in zip((None, *tables), (*tables, None), strict=True):
        sparse_switch(off, on)
        found.append([t.clone() for t in targets])
    return found


@pytest.mark.parametrize(
    "dtypes",
    [(torch.float32,), (torch.bfloat16,), (torch.float16,), (torch.bfloat16, torch.float32)],
    ids=["fp32", "bf16", "fp16", "mixed"],
)
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("values", [torch.float32, torch.bfloat16], ids=str)
def test_the_bits_of_the_reference(dtypes: tuple[torch.dtype, ...], add: bool, values: torch.dtype) -> None:
    results = []
    for name in ("triton", "reference"):
        use(name)
        targets = weights(*dtypes)
        before = [t.clone() for t in targets]
        tables = [table(targets, 5, values, add=add), table(targets[1:], 6, values, add=add)]
        results.append(steps(targets, *tables))
        assert all(torch.equal(one, two) for one, two in zip(targets, before, strict=True))
        assert not torch.equal(results[-1][0][1], before[1])
    for one, two in zip(*results, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_one_launch_for_all_weights_of_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []
    run = triton._run

    def counting(*arguments: Any, **options: Any) -> None:
        launches.append(arguments[1].dtype)
        run(*arguments, **options)

    monkeypatch.setattr(triton, "_run", counting)
    targets = weights(torch.bfloat16)
    steps(targets, table(targets, 1), table(targets, 2))
    assert launches == [torch.bfloat16] * 4  # on; off and on; off


def test_a_stack_and_what_is_refused() -> None:
    targets = weights(torch.bfloat16)
    before = [t.clone() for t in targets]
    first, second = table(targets, 1), table(targets, 2)
    sparse_switch(None, first)
    sparse_switch(None, second)
    with pytest.raises(KernelError, match="after this one"):
        sparse_switch(first, None)
    sparse_switch(second, None)
    sparse_switch(first, None)
    assert all(torch.equal(one, two) for one, two in zip(targets, before, strict=True))
    sparse_switch(None, first)
    targets[1].mul_(2)
    with pytest.raises(KernelError, match="was changed while"):
        sparse_switch(first, None)


def test_torch_knows_that_the_weight_changed() -> None:
    weight = torch.randn(4, 4, requires_grad=True)
    y = torch.nn.functional.linear(torch.randn(2, 4, requires_grad=True), weight)
    sparse_switch(None, SparseTable([weight], [torch.tensor([3])], [torch.ones(1)]))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_weights_that_moved_are_found() -> None:
    """A weight with other memory: nothing is written where it was."""
    weight = torch.nn.Parameter(torch.randn(8, 8))
    one = SparseTable([weight], [torch.tensor([1, 63])], [torch.ones(2)])
    sparse_switch(None, one)
    sparse_switch(one, None)
    old = weight.data
    kept = old.clone()
    weight.data = torch.zeros(8, 8)
    sparse_switch(None, one)
    assert torch.equal(old, kept) and weight.sum() == 2 and weight.data[0, 1] == weight.data[7, 7] == 1


def test_a_cast_weight_is_found() -> None:
    linear = torch.nn.Linear(8, 8)
    before = linear.weight.detach().bfloat16()
    one = SparseTable([linear.weight], [torch.tensor([1, 63])], [torch.ones(2)])
    sparse_switch(None, one)
    linear.bfloat16()
    sparse_switch(one, None)
    assert torch.equal(linear.weight, before)


def test_originals_that_library_calls_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = weights(torch.float16)
    before = [t.clone() for t in targets]
    one = table(targets, 3)
    use("reference")
    sparse_switch(None, one)
    use("triton")
    sparse_switch(one, None)
    assert all(torch.equal(a, b) for a, b in zip(targets, before, strict=True))


def test_what_the_kernel_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("peftx_kernels.ops.sparse_switch.op.sparse_switch", lambda off, on: called.append(on))
    targets = weights(torch.float64)
    one = table(targets, 1)
    sparse_switch(None, one)
    assert called == [one]
    assert not triton.fits("sparse_switch", None, table(weights(torch.float32), 1))  # not on a GPU
