"""What torch sees of DoRA's kernels: memory, changed outputs, autocast, checkpoints, compilers, other forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases.dora import against_float64, tensors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from peftx_kernels import activation_source, dora_linear, row_sq, use
from peftx_kernels.ops.dora_linear import reference
from peftx_kernels.ops.dora_linear.launch import dora_gradients
from peftx_kernels.testing import TOLERANCES, errors, relative_error

F32 = torch.float32


def identity(t: Tensor) -> Tensor:
    return t


def halved(t: Tensor) -> Tensor:
    return -0.5 * t


def halved_(t: Tensor) -> Tensor:
    """In place; unlike relu_, which leaves alone what has a gradient."""
    return t.mul_(-0.5)


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_output_may_be_changed_in_place(hooks: bool, rate: float, route: str) -> None:
    given = tensors((9,), 6, 5, 2, torch.float32)
    with torch.no_grad():
        given["magnitude"][0] *= 1e-3
    inputs = list(given.values())

    def run(change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(identity, identity) if hooks else torch.enable_grad():
            y = change(dora_linear(*inputs, 0.7, dropout=rate, training=True))
        return torch.autograd.grad(y.sum(), inputs)

    for changed, plain in ((torch.relu_, torch.relu), (halved_, halved)):
        for one, two in zip(run(changed), run(plain), strict=True):
            assert relative_error(one, two) < 1e-5


@pytest.mark.parametrize("change", [halved, halved_], ids=["kept", "in place"])
def test_under_checkpointing(change: Callable[[Tensor], Tensor]) -> None:
    given = tensors((9,), 8, 5, 2, torch.float32)

    def block(change: Callable[[Tensor], Tensor], *tensors: Tensor) -> Tensor:
        h = F.gelu(tensors[0])
        source = activation_source(h)
        y = change(dora_linear(h, *tensors[1:], 0.7, dropout=0.5, training=True, source=source))
        return dora_linear(y, tensors[1].t(), None, tensors[4].t(), tensors[3].t(), torch.ones(8), 0.7)

    torch.manual_seed(1)
    plain = torch.autograd.grad(block(halved, *given.values()).sum(), list(given.values()))
    torch.manual_seed(1)
    y = checkpoint(block, change, *given.values(), use_reentrant=False)
    for one, two in zip(torch.autograd.grad(y.sum(), list(given.values())), plain, strict=True):
        assert relative_error(one, two) < 1e-5


def kept(given: dict[str, Tensor], *, recompute: bool = False, **options: Any) -> int:
    seen: dict[int, int] = {}
    own = {t.data_ptr() for t in given.values()}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            seen[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, identity):
        act = F.gelu(given["x"])
        source = activation_source(act) if recompute else None
        y = dora_linear(act, *list(given.values())[1:], 1.0, source=source, **options)
    assert y.requires_grad
    own |= set(seen)
    beside = [t for t in vars(y.grad_fn).values() if isinstance(t, Tensor)] if y.grad_fn is not None else []
    return sum(seen.values()) + sum(t.nbytes for t in beside if t.data_ptr() not in own)


def test_kept_bytes() -> None:
    rows, width, out, rank = 64, 32, 48, 8
    given = tensors((rows,), width, out, rank, torch.float32)
    given["weight"].requires_grad_(False)
    x, s, y, small = rows * width * 4, rows * rank * 4, rows * out * 4, 2 * out * 4  # gates and norms
    assert kept(given) == x + s + y + small
    assert kept(given, dropout=0.1, training=True) == x + s + y + small + 8  # the seed
    assert kept(given, recompute=True) == s + y + small
    for name in ("a", "b"):
        given[name].requires_grad_(False)
    assert kept(given) == x + s + y + small
    given["magnitude"].requires_grad_(False)
    assert kept(given) == small
    given["a"].requires_grad_(True)
    assert kept(given) == x + small


def test_nothing_stays_after_the_backward_pass() -> None:
    given = tensors((9,), 8, 5, 2, torch.float32)
    y = dora_linear(*given.values(), 0.7)
    assert y.grad_fn is not None
    product, seen = y.grad_fn.node, []
    given["x"].register_hook(lambda _: seen.append(product.unpacked))  # as soon as the node itself has run
    for inputs in ([given["magnitude"]], list(given.values())):
        torch.autograd.grad(y.sum(), inputs, retain_graph=True)
        assert product.unpacked is None
    y.sum().backward()
    assert seen == [None, None]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_the_same_bits_every_time() -> None:
    inputs = list(tensors((300,), 32, 272, 8, torch.bfloat16).values())
    first, second = (torch.autograd.grad(dora_linear(*inputs, 0.7).sum(), inputs) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


# Precision, other tiers, compilers


def test_without_gradients() -> None:
    given = [t.detach() for t in tensors((4,), 6, 5, 2, torch.float32).values()]
    plain = dora_linear(*given, 1.0)
    with torch.inference_mode():
        assert torch.equal(dora_linear(given[0].clone(), *given[1:], 1.0), plain)
    with torch.no_grad():
        trained = [t.clone().requires_grad_() for t in given]
        assert torch.equal(dora_linear(*trained, 1.0), plain)


def test_autocast_and_wide_adapters() -> None:
    given = tensors((9,), 32, 16, 4, torch.float32)

    def inside(**tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = dora_linear(**tensors, scale=0.7)
        assert y.dtype == torch.bfloat16
        return y

    with torch.no_grad():
        given["magnitude"][0] *= 1e-3
    found = errors(inside, lambda **t: reference.dora_linear(**t, scale=0.7), given)
    assert all(error < 4 * TOLERANCES[torch.bfloat16] for error in found.values()), found
    for name in ("x", "weight", "bias"):
        given[name] = given[name].detach().bfloat16().requires_grad_()
    found = against_float64(given)
    assert all(error < 2 * TOLERANCES[torch.bfloat16] for error in found.values()), found
    dora_linear(**given, scale=0.7).sum().backward()
    assert {t.grad.dtype for t in (given["a"], given["b"], given["magnitude"]) if t.grad is not None} == {
        torch.float32
    }


def test_what_the_kernels_cannot_do_is_eager() -> None:
    x, weight, bias, a, b, magnitude = tensors((3,), 6, 5, 2, torch.float32).values()
    double = [t.detach().double().requires_grad_() for t in (x, weight, bias, a, b, magnitude)]
    y = dora_linear(*double, 1.0)
    use("eager")
    assert torch.equal(y, dora_linear(*double, 1.0)) and type(y.grad_fn).__name__ != "_GateBackward"
    use("triton")
    plain = [t.detach() for t in (weight, bias, a, b, magnitude)]
    many = torch.randn(4, 3, 6)
    mapped = torch.func.vmap(lambda one: dora_linear(one, *plain, 1.0))(many)
    torch.testing.assert_close(mapped, dora_linear(many, *plain, 1.0))


def test_torch_accepts_the_operation() -> None:
    weight, bias, b = torch.randn(20, 16), torch.randn(20), torch.randn(20, 3)
    gate, norm = torch.rand(20), torch.rand(20)
    x, s, y = torch.randn(2, 4, 16), torch.randn(8, 3), torch.randn(2, 4, 20)
    d_y = torch.randn(2, 8, 20)[:, 2:6]
    check = torch.library.opcheck
    operation = dora_gradients.registered
    check(operation, (d_y, y, True, gate, norm, bias, x, s, weight, b, 0.3, True, True))
    check(operation, (d_y, y, False, gate, norm, None, x, s, weight, b, 0.3, False, False))
    check(operation, (d_y[0], None, True, gate, norm, None, None, None, weight, None, 0.3, True, True))
    check(
        operation, (d_y[:, :0], y[:, :0], True, gate, norm, bias, x[:, :0], s[:0], weight, b, 0.3, True, True)
    )


def test_one_graph_twice_in_it() -> None:
    given = tensors((2, 7), 12, 12, 3, torch.float32)

    def model(given: dict[str, Tensor]) -> Tensor:
        first, *rest = given.values()
        y = dora_linear(F.gelu(first), *rest, 2.0)
        return dora_linear(y.relu_(), *rest, 2.0, weight_sq=row_sq(given["weight"])).sin().sum()

    inputs = list(given.values())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        got, want = compiled(given), model(given)
        torch.testing.assert_close(got, want)
        for one, two in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        with torch.no_grad():  # the compiled graph measures anew
            given["b"] *= 2


def test_compiled_choices_and_dropout() -> None:
    given = tensors((20,), 16, 8, 4, torch.float32)
    x = given["x"]
    for name in ("weight", "bias", "magnitude"):
        given[name].requires_grad_(False)

    def model() -> Tensor:
        return dora_linear(*given.values(), 1.0, dropout=0.5, training=True) - given["bias"]

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    first, second = compiled(), compiled()
    assert not torch.equal(first, second)
    # y is linear in x, so x . dy/dx = y for the very mask that was drawn
    gradient, _ = torch.autograd.grad(second.sum(), [x, given["b"]])
    torch.testing.assert_close((gradient * x).sum(), second.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained", [("magnitude",), ("x",), ("a",), ("b",), ("weight", "bias")], ids=str)
def test_compiled_choices_of_trained_inputs(trained: tuple[str, ...]) -> None:
    given = {
        name: t.detach().requires_grad_(name in trained) for name, t in tensors((4,), 6, 5, 2, F32).items()
    }
    compiled = torch.compile(
        lambda given: dora_linear(*given.values(), 0.7).sin(), fullgraph=True, backend="aot_eager"
    )
    inputs = [given[name] for name in trained]
    got, want = compiled(given), dora_linear(*given.values(), 0.7).sin()
    torch.testing.assert_close(got, want)
    for one, two in zip(
        torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
