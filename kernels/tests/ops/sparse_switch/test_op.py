"""Written and taken out to the last bit, in every order that makes sense; and refused in the others."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peftx_kernels import KernelError, SparseTable, sparse_switch, use

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHAPES = ((1,), (7, 9), (33, 65), (5, 3, 3, 3), (4, 4))


def weights(dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in SHAPES]


def table(
    targets: list[Tensor], share: float = 0.3, dtype: torch.dtype | None = None, **options: Any
) -> SparseTable:
    """Random entries of each weight, none of the last, all of the first."""
    chosen = [torch.rand(t.numel()).lt(share).nonzero().flatten().int() for t in targets]
    chosen[0], chosen[-1] = torch.arange(targets[0].numel()), chosen[-1][:0]
    values = [torch.randn(len(i)).to(dtype or t.dtype) for i, t in zip(chosen, targets, strict=True)]
    return SparseTable(targets, chosen, values, **options)


def copies(targets: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in targets]


def same(targets: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(targets, others, strict=True))


def dense(one: SparseTable, before: list[Tensor]) -> list[Tensor]:
    """What writing gives, by whole weights in float64, rounded once."""
    found = []
    parts = zip(before, one.parts_of(one.indices), one.parts_of(one.values), strict=True)
    for weight, index, value in parts:
        update = torch.zeros(weight.numel(), dtype=torch.float64)
        update[index.long()] = value.double()
        chosen = torch.zeros(weight.numel(), dtype=torch.bool)
        chosen[index.long()] = True
        flat = weight.double().view(-1)
        new = flat + update if one.add else update
        found.append(torch.where(chosen, new, flat).to(weight.dtype).view(weight.shape))
    return found


@pytest.fixture(params=["eager", "reference"])
def tier(request: pytest.FixtureRequest) -> str:
    use(request.param)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("values", [None, torch.float32], ids=["own", "fp32"])
@pytest.mark.parametrize("add", [True, False])
def test_written_and_taken_out(dtype: torch.dtype, values: torch.dtype | None, add: bool, tier: str) -> None:
    targets = weights(dtype)
    before = copies(targets)
    one = table(targets, dtype=values, add=add)
    sparse_switch(None, one)
    assert one.written and same(targets, dense(one, before)) and not same(targets, before)
    assert all(t.requires_grad and t.grad_fn is None for t in targets)
    sparse_switch(one, None)
    assert not one.written and one.originals is None and same(targets, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_from_one_to_the_next(dtype: torch.dtype, tier: str) -> None:
    targets = weights(dtype)
    before = copies(targets)
    first, second = table(targets), table(targets[1:4], 0.6)  # they overlap, and have other weights
    sparse_switch(None, first)
    sparse_switch(first, second)
    assert not first.written and second.written
    assert same(targets[1:4], dense(second, before[1:4])) and same(
        [targets[0], targets[4]], [before[0], before[4]]
    )
    sparse_switch(second, first)
    assert same(targets, dense(first, before))
    sparse_switch(first, None)
    assert same(targets, before)


def test_the_same_entries_are_written_once(tier: str) -> None:
    targets = weights(torch.float32)
    before = copies(targets)
    first = table(targets)
    second = SparseTable(
        targets, first.parts_of(first.indices), [2 * v for v in first.parts_of(first.values)]
    )
    sparse_switch(None, first)
    sparse_switch(first, second)
    assert same(targets, dense(second, before))
    sparse_switch(second, second)  # with values that may have changed
    assert same(targets, dense(second, before))
    sparse_switch(second, None)
    assert same(targets, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_stack(dtype: torch.dtype, tier: str) -> None:
    """Three that overlap: the sum in the order of writing, undone in the other, whatever rounding did."""
    targets = weights(dtype)
    stack = [table(targets, 0.5), table(targets[:3], 0.5), table(targets[2:], 0.5)]
    states = [copies(targets)]
    for one in stack:
        sparse_switch(None, one)
        states.append(copies(targets))
    assert same(states[2][:3], dense(stack[1], states[1][:3]))
    for one in reversed(stack):
        assert same(targets, states.pop())
        sparse_switch(one, None)
    assert same(targets, states.pop())


def test_the_wrong_order_is_refused(tier: str) -> None:
    targets = weights(torch.float32)
    first, second = table(targets), table(targets[2:3])
    with pytest.raises(KernelError, match="not written into its weights"):
        sparse_switch(first, None)
    sparse_switch(None, first)
    with pytest.raises(KernelError, match="already; take it out first"):
        sparse_switch(None, first)
    sparse_switch(None, second)
    written = copies(targets)
    with pytest.raises(KernelError, match=r"into weight 2, \(33, 65\), after this one"):
        sparse_switch(first, None)
    assert same(targets, written) and first.written
    sparse_switch(second, None)
    sparse_switch(first, None)


def test_weights_that_somebody_changed_are_refused(tier: str) -> None:
    targets = weights(torch.float32)
    one = table(targets)
    sparse_switch(None, one)
    with torch.no_grad():
        targets[1].add_(1)
    with pytest.raises(KernelError, match=r"weight 1, \(7, 9\), was changed while"):
        sparse_switch(one, None)


def test_nothing_is_written_over_an_adapter_whose_weights_changed(tier: str) -> None:
    """The one above would keep what somebody else wrote, and the one below could never be taken out."""
    targets = weights(torch.float32)
    below, above = table(targets[:3]), table(targets[1:])
    sparse_switch(None, below)
    with torch.no_grad():
        targets[2].mul_(2)
    changed = copies(targets)
    with pytest.raises(KernelError, match=r"weight 1, \(33, 65\), was changed while"):
        sparse_switch(None, above)
    assert same(targets, changed) and not above.written


def test_one_of_a_stack_gives_way_to_another(tier: str) -> None:
    targets = weights(torch.float32)
    before = copies(targets)
    below, first, second = table(targets), table(targets[:2]), table(targets[1:])
    sparse_switch(None, below)
    lower = copies(targets)
    sparse_switch(None, first)
    sparse_switch(first, second)  # weight 0 is again as `below` left it, weight 2 no longer is
    assert same(targets[1:], dense(second, lower[1:])) and same(targets[:1], lower[:1])
    with pytest.raises(KernelError, match=r"into weight 1, \(7, 9\), after this one"):
        sparse_switch(below, None)
    sparse_switch(second, None)
    sparse_switch(below, None)
    assert same(targets, before)


def test_a_cast_model_gets_the_cast_base_back(tier: str) -> None:
    linear = torch.nn.Linear(9, 7)
    before = linear.weight.detach().half()
    one = table([linear.weight])
    sparse_switch(None, one)
    linear.half()
    sparse_switch(one, None)
    assert linear.weight.dtype is torch.float16 and torch.equal(linear.weight, before)


def test_a_copy_has_its_own(tier: str) -> None:
    """A model is copied with two tables on one another, the upper one met first: each goes out of the copy alone."""
    targets = weights(torch.float32)
    before = copies(targets)
    below, above = table(targets), table(targets[1:3])
    sparse_switch(None, below)
    sparse_switch(None, above)
    written = copies(targets)
    upper, lower, mine = copy.deepcopy((above, below, targets))
    assert all(one is two for one, two in zip(lower.targets, mine, strict=True)) and same(mine, written)
    with pytest.raises(KernelError, match="after this one"):
        sparse_switch(lower, None)
    sparse_switch(upper, None)
    sparse_switch(lower, None)
    assert same(mine, before) and same(targets, written)
    stored = io.BytesIO()
    torch.save((targets, above, below), stored)
    stored.seek(0)
    mine, upper, lower = torch.load(stored, weights_only=False)
    sparse_switch(upper, None)
    sparse_switch(lower, None)
    assert same(mine, before) and same(targets, written)


def test_weights_that_were_loaded_again(tier: str) -> None:
    linear = torch.nn.Linear(9, 7)
    base = copy.deepcopy(linear.state_dict())
    below, above = table([linear.weight]), table([linear.weight])
    sparse_switch(None, below)
    sparse_switch(None, above)
    linear.load_state_dict(base)
    with pytest.raises(KernelError, match="was changed while"):
        sparse_switch(above, None)
    for one in (below, above, above):
        one.forget()
    sparse_switch(None, below)
    sparse_switch(below, None)
    assert torch.equal(linear.weight, base["weight"]) and not above.written


def test_a_table_that_is_gone_holds_nothing(tier: str) -> None:
    targets = weights(torch.float32)
    below, above = table(targets), table(targets)
    sparse_switch(None, below)
    lower = copies(targets)
    sparse_switch(None, above)
    del above  # what it wrote stays, for whoever wants it so
    assert not same(targets, lower)
    sparse_switch(below, None)
    with torch.no_grad():
        targets[1].add_(1)
    last = table(targets)
    sparse_switch(None, last)
    one = weakref.ref(targets[1])
    del targets, last, below
    gc.collect()
    assert one() is None


def test_a_backward_pass_notices() -> None:
    weight = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(2, 4, requires_grad=True)
    y = F.linear(x, weight)
    one = SparseTable([weight], [torch.tensor([3, 5])], [torch.ones(2)])
    sparse_switch(None, one)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    sparse_switch(one, None)


def test_a_compiled_model_reads_what_is_written() -> None:
    linear = torch.nn.Linear(4, 3)
    compiled = torch.compile(linear, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 4)
    base = compiled(x)
    one = SparseTable([linear.weight], [torch.tensor([0, 7])], [torch.ones(2)])
    with torch._dynamo.config.patch(error_on_recompile=True):
        sparse_switch(None, one)
        assert torch.equal(compiled(x), linear(x)) and not torch.equal(compiled(x), base)
        sparse_switch(one, None)
        assert torch.equal(compiled(x), base)


def test_inference_tensors() -> None:
    with torch.inference_mode():
        weight = torch.randn(6, 5)
        before = weight.clone()
        one = SparseTable([weight], [torch.tensor([0, 29])], [torch.ones(2)])
        sparse_switch(None, one)
        assert not torch.equal(weight, before)
        sparse_switch(one, None)
        assert torch.equal(weight, before)


def test_nothing() -> None:
    sparse_switch(None, None)
    nothing = SparseTable([], [], [])
    sparse_switch(None, nothing)
    sparse_switch(nothing, None)


BAD: dict[str, tuple[Any, Any, Any, str]] = {
    "counts": ([0], [[0], [1]], [[1.0]], "1 weights, 2 tensors of indices and 1 of values"),
    "descending": ([0], [[2, 1]], [[1.0, 1.0]], r"weight 0, \(2, 3\), are not ascending"),
    "later": ([1, 0], [[0, 1], [2, 1]], [[1.0, 1.0], [1.0, 1.0]], r"weight 1, \(2, 3\), are not ascending"),
    "after none": ([0, 1], [[], [1, 1]], [[], [1.0, 1.0]], r"weight 1, \(4,\), are not ascending"),
    "twice": ([0], [[1, 1]], [[1.0, 1.0]], "not ascending, distinct"),
    "negative": ([0], [[-1, 1]], [[1.0, 1.0]], "from 0 to its last entry"),
    "beyond": ([1, 0], [[], [1, 6]], [[], [1.0, 1.0]], r"weight 1, \(2, 3\), are not"),
    "values": ([0], [[0, 1]], [[1.0]], r"indices of weight 0, .* are \(2,\) torch.int64 and values \(1,\)"),
    "tied": ([0, 0], [[0], [1]], [[1.0], [1.0]], r"weight 1, .* shares its memory"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused(case: str) -> None:
    which, indices, values, message = BAD[case]
    made = [torch.zeros(2, 3), torch.zeros(4)]
    given = [torch.tensor(i, dtype=torch.int64) for i in indices], [torch.tensor(v) for v in values]
    with pytest.raises(KernelError, match=message):
        SparseTable([made[place] for place in which], *given)


def test_weights_that_cannot_be_written_are_refused() -> None:
    index, value = [torch.tensor([0])], [torch.ones(1)]
    for weight, message in (
        (torch.zeros(3, 2).t(), "is not contiguous"),
        (torch.zeros(3, dtype=torch.int8), "int8, is quantised"),
        (torch.zeros(3, device="meta"), "is on meta"),
    ):
        with pytest.raises(KernelError, match=message):
            SparseTable([weight], index, value)
    with pytest.raises(KernelError, match=r"torch\.float32 and values"):
        SparseTable([torch.zeros(3)], [torch.zeros(1)], value)


class Calls(TorchDispatchMode):
    """Counts what touches the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_how_often_a_weight_is_touched(dtype: torch.dtype) -> None:
    targets = [torch.randn(64, 64).to(dtype)]
    index = torch.arange(0, 4096, 100)
    first, second = (SparseTable(targets, [index], [torch.randn(len(index)).to(dtype)]) for _ in range(2))
    other = SparseTable(targets, [index + 1], [torch.randn(len(index)).to(dtype)])
    steps = [(None, first), (first, second), (second, other), (other, None)]
    wanted = [(1, 1), (0, 1), (1, 2), (0, 1)]  # reads and writes: on, to the same entries, to others, off
    for (off, on), (reads, writes) in zip(steps, wanted, strict=True):
        with Calls() as calls:
            sparse_switch(off, on)
        assert (calls.names.count("index_select"), calls.names.count("index_copy_")) == (reads, writes)
        assert not any(name.startswith(("scatter", "index_put", "put", "index_add")) for name in calls.names)


def test_tiers_give_the_same_bits() -> None:
    for dtype, add in itertools.product((torch.bfloat16, torch.float16), (True, False)):
        found = []
        for name in ("eager", "reference"):
            use(name)
            torch.manual_seed(3)
            targets = weights(dtype)
            sparse_switch(None, table(targets, 0.9, dtype=torch.float32, add=add))
            found.append(copies(targets))
        assert same(*found)
