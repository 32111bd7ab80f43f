"""What torch sees of LoRA's kernels: memory, changed outputs, autocast, compilers, other forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from kernel_cases.lora import tensors
from torch import Tensor

from peftx_kernels import activation_source, lora_linear, lora_linear_slices, use
from peftx_kernels.ops.lora_linear import reference
from peftx_kernels.ops.lora_linear.launch import lora_backward, lora_forward
from peftx_kernels.testing import TOLERANCES, errors, within


def apart(dtype: torch.dtype) -> tuple[dict[str, Tensor], Callable[..., Any]]:
    """Three parts: a pair that leaves rows out, and one that overlaps both; ranks 2, 5 and 1."""
    base = tensors((70,), 24, 90, 2, dtype)
    given = {name: base[name] for name in ("x", "weight", "bias")}
    places = ((0, 33, 2, 0.5), (50, 90, 5, 2.0), (20, 70, 1, -1.0))
    for number, (start, stop, rank, _) in enumerate(places):
        one = tensors((1,), 24, stop - start, rank, dtype)
        given |= {f"a{number}": one["a"], f"b{number}": one["b"]}

    def call(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, weight: Tensor, bias: Tensor, **factors: Tensor) -> Tensor:
            parts = [
                (start, stop, factors[f"a{n}"], factors[f"b{n}"], scale)
                for n, (start, stop, _, scale) in enumerate(places)
            ]
            return op(x, weight, bias, parts)

        return run

    return given, call


def test_kept_bytes() -> None:
    rows, width, out, rank = 64, 32, 48, 8
    h, weight, bias, a, b = tensors((rows,), width, out, rank, torch.float32).values()
    weight.requires_grad_(False)
    x, s = rows * width * 4, rows * rank * 4

    def kept(recompute: bool = False, **options: Any) -> int:
        seen: dict[int, int] = {}
        own = {t.data_ptr() for t in (h, weight, bias, a, b)}

        def pack(t: Tensor) -> Tensor:
            if t.data_ptr() not in own:
                seen[t.data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            act = F.gelu(h)
            source = activation_source(act) if recompute else None
            y = lora_linear(act, weight, bias, a, b, 1.0, source=source, **options)
        assert y.requires_grad
        return sum(seen.values())

    assert kept() == x + s
    assert kept(dropout=0.1, training=True) == x + s + 8  # the seed
    assert kept(True) == s
    b.requires_grad_(False)
    assert kept() == x
    a.requires_grad_(False)
    b.requires_grad_(True)
    assert kept() == s


def test_the_input_is_recomputed() -> None:
    given = tensors((9,), 8, 5, 2, torch.float32)

    def run(op: Callable[..., Tensor], x: Tensor, **rest: Tensor) -> Tensor:
        h = F.gelu(x)
        return op(h, *rest.values(), 1.3, source=activation_source(h) if op is lora_linear else None)

    found = errors(lambda **t: run(lora_linear, **t), lambda **t: run(reference.lora_linear, **t), given)
    assert within(found, torch.float32), found


def test_output_may_be_changed_in_place(route: str) -> None:
    inputs = list(tensors((4,), 6, 5, 2, torch.float32).values())
    plain = torch.autograd.grad(F.relu(lora_linear(*inputs, 1.0)).sum(), inputs)
    changed = torch.autograd.grad(lora_linear(*inputs, 1.0).relu_().sum(), inputs)
    assert all(torch.equal(one, two) for one, two in zip(changed, plain, strict=True))


def test_the_same_bits_every_time() -> None:
    inputs = list(tensors((300,), 32, 272, 8, torch.bfloat16).values())
    first, second = (torch.autograd.grad(lora_linear(*inputs, 1.0).sum(), inputs) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_autocast_and_wide_adapters() -> None:
    given = tensors((9,), 32, 16, 4, torch.float32)

    def inside(**tensors: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = lora_linear(**tensors, scale=0.7)
        assert y.dtype == torch.bfloat16
        return y

    found = errors(inside, lambda **t: reference.lora_linear(**t, scale=0.7), given)
    assert all(error < 4 * TOLERANCES[torch.bfloat16] for error in found.values()), found
    for name in ("x", "weight", "bias"):
        given[name] = given[name].detach().bfloat16().requires_grad_()
    found = errors(lora_linear, reference.lora_linear, given, scale=0.7)
    assert all(error < 2 * TOLERANCES[torch.bfloat16] for error in found.values()), found
    lora_linear(**given, scale=0.7).sum().backward()
    assert {t.grad.dtype for t in (given["a"], given["b"]) if t.grad is not None} == {torch.float32}


def test_what_the_kernels_cannot_do_is_eager() -> None:
    for given in (tensors((3,), 6, 5, 2, torch.float64), tensors((3,), 0, 5, 2, torch.float32)):
        use("triton")
        y = lora_linear(*given.values(), 1.0)
        use("eager")
        assert (
            torch.equal(y, lora_linear(*given.values(), 1.0)) and type(y.grad_fn).__name__ != "_FusedBackward"
        )
    use("triton")
    x, weight, bias, a, b = (t.detach() for t in tensors((4, 6), 8, 5, 2, torch.float32).values())
    mapped = torch.func.vmap(lambda one: lora_linear(one, weight, bias, a, b, 1.0))(x)
    torch.testing.assert_close(mapped, lora_linear(x, weight, bias, a, b, 1.0))
    assert torch.equal(lora_linear_slices(x, weight, bias, []), F.linear(x, weight, bias))


def test_torch_accepts_the_operations() -> None:
    layout, scales = [0, 9, 0, 2, 0, 12, 20, 2, 3, 18], [0.5, 2.0]
    weight, bias, a, b = torch.randn(20, 16), torch.randn(20), torch.randn(5, 16), torch.randn(42)
    seed, gate = torch.tensor(1234567890123), torch.rand(20)
    inputs = (torch.randn(6, 16), torch.randn(16, 6).t(), torch.randn(2, 8, 16)[:, 2:5])
    plain, full = (None, None, layout, scales, 0.0), (gate, seed, layout, scales, 0.3)
    all_, first, second = (True, True, True), (False, True, False), (True, False, False)
    for x, last, needs in zip(inputs, (plain, full, full), (all_, first, second), strict=True):
        torch.library.opcheck(lora_forward.registered, (x, weight, bias, a, b, *last))
        s, d_y = torch.randn(x[..., 0].numel(), 5), torch.randn(*x.shape[:-1], 20)
        torch.library.opcheck(
            lora_backward.registered, (d_y, x, s, weight, a, b, seed, layout, scales, 0.3, *needs)
        )


def test_one_graph_twice_in_it() -> None:
    given = tensors((2, 7), 12, 12, 3, torch.float32)
    more, call = apart(torch.float32)

    def model(given: dict[str, Tensor], more: dict[str, Tensor]) -> Tensor:
        y = lora_linear(F.gelu(given["x"]), *(given[n] for n in ("weight", "bias", "a", "b")), 2.0)
        y = lora_linear(y, *(given[n] for n in ("weight", "bias", "a", "b")), 2.0)
        return y.sum() + call(lora_linear_slices)(**more).sin().sum()

    inputs = [*given.values(), *more.values()]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got, want = compiled(given, more), model(given, more)
    torch.testing.assert_close(got, want)
    for one, two in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_compiled_dropout_drops_anew() -> None:
    given = tensors((20,), 16, 8, 4, torch.float32)
    x = given["x"]

    def model() -> Tensor:
        return lora_linear(x, given["weight"], None, given["a"], given["b"], 1.0, dropout=0.5, training=True)

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    first, second = compiled(), compiled()
    assert not torch.equal(first, second)
    # y is linear in x, so x . dy/dx = y for the very mask that was drawn
    (gradient,) = torch.autograd.grad(second.sum(), x)
    torch.testing.assert_close((gradient * x).sum(), second.sum(), rtol=1e-4, atol=1e-4)
