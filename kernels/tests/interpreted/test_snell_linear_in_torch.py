"""What torch sees of the kernels: memory, autocast, compilers, checkpoints, what they hand on to other forms."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases.snell import a_part, factors, layer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from peftx_kernels import activation_source, snell_linear, snell_update
from peftx_kernels.ops.snell_linear import launch, op, sizes
from peftx_kernels.ops.snell_linear.launch import contract, form, form_again, numbers
from peftx_kernels.ops.snell_linear.sizes import Tile
from peftx_kernels.testing import relative_error


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes milliseconds for an iteration, whatever its tile."""
    for name in ("FORM", "SUMS", "CONTRACT"):
        monkeypatch.setattr(sizes, name, Tile(256, 128, 1))
    monkeypatch.setattr(sizes, "JOIN", 2048)


# What is kept, and what is in flight


def kept(run: Any, *own: Tensor) -> int:
    mine = {t.untyped_storage().data_ptr() for t in own}
    seen: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in mine:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(seen.values())


def test_kept_bytes() -> None:
    x, weight, bias = layer((100,), 24, 30)
    weight.requires_grad_(False)
    parts = [a_part(0, 10, 24, (1, 1), mix=True), a_part(10, 20, 24, (1, 1)), a_part(20, 30, 24, (1, 1))]
    own = [weight, bias, *factors(*parts)]
    notes = 3 * 8 + 2 * 24 * 4  # two numbers a map, with a mixture two for each column
    assert kept(lambda: snell_linear(x, weight, bias, parts), *own) == x.numel() * 4 + notes
    half = x.detach().bfloat16().requires_grad_()
    assert kept(lambda: snell_linear(half, weight.bfloat16(), None, parts[1:]), weight, *own) == (
        half.numel() * 2 + 16 + weight.numel() * 2
    )
    assert kept(lambda: snell_update(parts[1]), *own) == 8

    def recomputed() -> Tensor:
        act = F.gelu(x)
        return snell_linear(act, weight, bias, parts, source=activation_source(act))

    assert kept(recomputed, x, *own) == notes


class Peak(TorchDispatchMode):
    """Tracks the bytes of storages that live at once; those alive before it was entered do not count."""

    def __init__(self, *before: Tensor) -> None:
        super().__init__()
        self.seen: set[int] = {t.untyped_storage()._cdata for t in before}
        self.alive = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gc.collect()  # the interpreter's launches leave cycles that hold their arguments
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if not isinstance(t, Tensor) or t.untyped_storage()._cdata in self.seen:
                continue
            storage = t.untyped_storage()
            self.seen.add(storage._cdata)
            self.alive += storage.nbytes()
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.alive -= size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_map_is_in_flight(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the type of the product at a time, of one layer or, in half precision, of one part; and partial sums."""
    monkeypatch.setattr(sizes, "FORM", Tile(512, 512, 1))
    monkeypatch.setattr(sizes, "CONTRACT", Tile(64, 512, 1))
    x, weight, bias = layer((2,), 512, 1024, dtype)
    weight.requires_grad_(False)
    parts = [a_part(0, 512, 512, (2, 8)), a_part(512, 1024, 512, (2, 8))]
    whole = weight.numel() * dtype.itemsize
    in_flight = whole if dtype is torch.float32 else whole // 2
    down, across, *_ = sizes.blocks(512, 512, 2, 8)
    sums = 4 * 2 * 8 * 512 * (down + across)
    in_backward = max(in_flight, whole // 2 + sums)
    gc.freeze()
    # the search's workspace; x, y, their gradients; the two factors of a part turned, and of both parts in gradients
    slack = 32768 + 40_000 + 6 * 4 * 2 * 8 * 512
    with Peak(x, weight, bias, *factors(*parts)) as forward:
        y = snell_linear(x, weight, bias, parts)
    assert in_flight <= forward.most < in_flight + slack
    with Peak(x, weight, bias, y, *factors(*parts)) as backward:
        gradients = torch.autograd.grad(y, [x, *factors(*parts)], torch.ones_like(y))
    assert in_backward <= backward.most < in_backward + slack
    gc.collect()
    gc.unfreeze()
    assert forward.alive < slack and backward.alive < slack and len(gradients) == 5


# Precision, compilers, fallbacks


def test_autocast_computes_and_returns_as_linear_does() -> None:
    x, weight, bias = layer((4, 9), 32, 16)
    part = a_part(0, 16, 32, (1, 2), mix=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = snell_linear(x, weight, bias, [part])
        assert y.dtype == F.linear(x, weight).dtype == torch.bfloat16
        inside = torch.autograd.grad(y.float().sum(), [x, *factors(part)], retain_graph=True)
    outside = torch.autograd.grad(y.float().sum(), [x, *factors(part)])
    want = snell_linear(x, weight, bias, [part])
    assert relative_error(y, want) < 1e-2
    for one, two, three in zip(
        inside, outside, torch.autograd.grad(want.sum(), [x, *factors(part)]), strict=True
    ):
        assert one.dtype == torch.float32 and torch.equal(one, two)
        assert relative_error(one, three) < 0.05


def test_torch_accepts_the_operations() -> None:
    parts = [a_part(0, 4, 5, (1, 1), mix=True), a_part(4, 7, 5, (1, 1))]
    tensors, (ints, floats) = [t.detach() for t in factors(*parts)], numbers(parts)
    weight = torch.randn(5, 8).t()
    torch.library.opcheck(form.registered, (weight, tensors, ints, floats, torch.float32))
    _, notes = form(weight, tensors, ints, floats, torch.float32)
    one, numbered = [t.detach() for t in factors(parts[0])], numbers(parts[:1])
    notes = notes[: launch.noted(5, True)]
    torch.library.opcheck(form_again.registered, (None, one, notes, *numbered, torch.bfloat16))
    torch.library.opcheck(contract.registered, (torch.randn(5, 4).t(), one, notes, *numbered))


def dense_ones(run: Any, *shapes: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of what autograd keeps that are as large as a map."""
    found: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (found.append(tuple(t.shape)), t)[1], lambda t: t
    ):
        run()
    return [shape for shape in found if shape in shapes]


def test_compiles_whole_twice_in_a_graph() -> None:
    x, weight, bias = layer((2, 7), 12, 12)
    weight.requires_grad_(False)
    part = a_part(2, 8, 12, (1, 1))
    taken = [x, bias, *factors(part)]

    def model(rate: Tensor) -> Tensor:
        given = [part._replace(sparsity=rate)]
        return snell_linear(snell_linear(x, weight, bias, given).sin(), weight, bias, given).square().sum()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for rate in (0.3, 0.7):
        on_device = torch.tensor(rate, dtype=torch.float64)
        plain, value = model(on_device), compiled(on_device)
        torch.testing.assert_close(value, plain)
    for one, two in zip(torch.autograd.grad(value, taken), torch.autograd.grad(plain, taken), strict=True):
        torch.testing.assert_close(one, two)
    kept = dense_ones(lambda: compiled(on_device), (12, 12), (6, 12))
    assert len(kept) <= 1  # the weight


def test_compiles_with_a_product_of_its_own() -> None:
    x, weight, bias = layer((2, 7), 12, 18, torch.float16)
    weight.requires_grad_(False)
    parts = [a_part(0, 6, 12, (1, 1), mix=True), a_part(12, 18, 12, (1, 1), mode="soft")]
    taken = [x, bias, *factors(*parts)]

    def model() -> Tensor:
        return snell_linear(x, weight, bias, parts).square().sum() + snell_update(parts[1]).sum()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    plain, value = model(), compiled()
    torch.testing.assert_close(value, plain)
    for one, two in zip(torch.autograd.grad(value, taken), torch.autograd.grad(plain, taken), strict=True):
        torch.testing.assert_close(one, two)
    assert len(dense_ones(compiled, (18, 12), (6, 12))) <= 1  # the weight


def test_compiled_dropout_drops() -> None:
    x, weight, bias = layer((64, 2), 32, 8)
    part = a_part(0, 8, 32, (1, 1))
    compiled = torch.compile(snell_linear, fullgraph=True, backend="aot_eager")
    base = compiled(x, weight, bias, [part])
    for options in ({"dropout": 0.5}, {"drop_path": 0.5}):
        dropped = compiled(x, weight, bias, [part], training=True, **options)
        assert not torch.equal(dropped, base)
        dropped.sum().backward()
        assert part.a.grad is not None and part.a.grad.count_nonzero()


def test_checkpointing_computes_the_same() -> None:
    inputs, part = layer((6,), 8, 9), a_part(0, 9, 8, (1, 2), mix=True)
    taken = [*inputs, *factors(part)]

    def run(x: Tensor) -> Tensor:
        return snell_linear(F.gelu(x), inputs[1], inputs[2], [part], dropout=0.3, training=True)

    results = []
    for through in (run, lambda x: checkpoint(run, x, use_reentrant=False)):
        torch.manual_seed(3)
        results.append(torch.autograd.grad(through(inputs[0]).sin().sum(), taken))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_output_may_be_changed_in_place() -> None:
    inputs, part = layer((4,), 6, 5), a_part(0, 5, 6, (1, 1))
    taken = [*inputs, *factors(part)]
    plain = torch.autograd.grad(F.relu(snell_linear(*inputs, [part])).sum(), taken)
    changed = torch.autograd.grad(snell_linear(*inputs, [part]).relu_().sum(), taken)
    assert all(torch.equal(one, two) for one, two in zip(plain, changed, strict=True))


def test_second_derivatives_are_refused() -> None:
    x, weight, bias = layer((4,), 6, 5)
    part = a_part(0, 5, 6, (1, 1))
    for y in (snell_linear(x, weight, bias, [part]), snell_update(part)):
        (first,) = torch.autograd.grad(y.square().sum(), part.a, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_double_and_functional_transforms_take_other_forms() -> None:
    x, weight, bias = (t.detach().double() for t in layer((4, 6), 8, 5))
    part = a_part(0, 5, 8, (1, 2), mix=True)
    want = op.snell_linear(x, weight, bias, [part])
    assert torch.equal(snell_linear(x, weight, bias, [part]), want)
    exact = part._replace(a=part.a.double(), b=part.b.double())
    assert torch.equal(snell_update(exact), op.snell_update(exact))

    def loss(a: Tensor, x: Tensor) -> Tensor:
        return snell_linear(x, weight.float(), bias.float(), [part._replace(a=a)]).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(part.a, x.float())
    want = torch.stack([torch.autograd.grad(loss(part.a, one), part.a)[0] for one in x.float()])
    assert relative_error(per_sample, want) < 1e-5


def test_wrong_parts_are_refused() -> None:
    x, weight, bias = layer((4,), 6, 5)
    part = a_part(0, 5, 6, (1, 1))
    with pytest.raises(ValueError, match="rows 3:9"):
        snell_linear(x, weight, bias, [part._replace(start=3, stop=9)])
    with pytest.raises(ValueError, match=r"sparsity is 1\.5"):
        snell_update(part._replace(sparsity=1.5))
    assert torch.equal(snell_linear(x, weight, bias, []), F.linear(x, weight, bias))


def test_the_table_has_the_kernels() -> None:
    from peftx_kernels.table import implementation

    assert implementation("snell_linear").__module__.endswith("snell_linear.triton")
    assert implementation("snell_update").__module__.endswith("snell_linear.triton")
