from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peftx_kernels import activation_source, lora_linear, lora_linear_slices, use
from peftx_kernels.ops.lora_linear import reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
SHAPES = [  # rows, in, out, rank
    ((1,), 5, 3, 1),
    ((1, 7), 33, 17, 2),
    ((63,), 31, 65, 8),
    ((2, 5, 3), 24, 9, 16),
    ((257,), 48, 33, 24),
    ((7,), 130, 70, 64),
]


def error(got: Tensor, want: Tensor) -> float:
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm().clamp(min=1e-30))


def tensors(rows: tuple[int, ...], width: int, out: int, rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = {
        "x": (*rows, width),
        "weight": (out, width),
        "bias": (out,),
        "a": (rank, width),
        "b": (out, rank),
    }
    return {name: (torch.randn(shape) * 0.5).to(dtype).requires_grad_() for name, shape in shapes.items()}


def gradients(
    op: Callable[..., Tensor], given: dict[str, Tensor], cotangent: Tensor, **options: Any
) -> list[Tensor]:
    y = op(*given.values(), 0.7, **options)
    return [
        y,
        *torch.autograd.grad(y, [t for t in given.values() if t is not None and t.requires_grad], cotangent),
    ]


def copies(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: t.detach().to(dtype).requires_grad_(t.requires_grad) for k, t in given.items()}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_every_gradient(shape: Any, dtype: torch.dtype) -> None:
    given = tensors(*shape, dtype)
    cotangent = torch.randn(*shape[0], shape[2]).to(dtype)
    got = gradients(lora_linear, given, cotangent)
    want = gradients(reference.lora_linear, copies(given, torch.float64), cotangent.double())
    for name, one, two in zip(("y", *given), got, want, strict=True):
        assert one.dtype == dtype and one.shape == two.shape
        assert error(one, two) < TOLERANCE[dtype] * (1 if name == "y" else 2), name


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_every_choice_of_trained_inputs(recompute: bool, rate: float) -> None:
    names = ["x", "weight", "bias", "a", "b"]
    for trained in range(1, 32):
        given = tensors((4, 3), 6, 5, 2, torch.float64)
        for bit, name in enumerate(names):
            given[name].requires_grad_(bool(trained >> bit & 1))
        chosen = [given[name] for name in names if given[name].requires_grad]
        results = []
        for tier in ("eager", "reference"):
            use(tier)
            torch.manual_seed(trained)
            x = F.gelu(given["x"])
            source = activation_source(x) if recompute else None
            y = lora_linear(
                x, *(given[n] for n in names[1:]), 1.3, dropout=rate, training=True, source=source
            )
            results.append([y, *torch.autograd.grad(y.sin().sum(), chosen)])
        for one, two in zip(*results, strict=True):
            assert error(one, two) < 1e-12, (trained, [n for n in names if given[n].requires_grad])


def test_zero_b_is_exactly_the_base() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        given = tensors((5, 7), 64, 48, 8, dtype)
        with torch.no_grad():
            given["b"].zero_()
        base = F.linear(given["x"], given["weight"], given["bias"])
        for rate in (0.0, 0.5):
            assert torch.equal(lora_linear(*given.values(), 2.0, dropout=rate, training=True), base)


def test_merged_weight_gives_the_same() -> None:
    x, weight, bias, a, b = tensors((9,), 20, 12, 4, torch.float64).values()
    assert error(lora_linear(x, weight, bias, a, b, 0.5), F.linear(x, weight + 0.5 * b @ a, bias)) < 1e-14


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
def test_empty_and_vector_inputs(rows: tuple[int, ...]) -> None:
    given = tensors(rows, 6, 5, 2, torch.float64)
    cotangent = torch.randn(*rows, 5, dtype=torch.float64)
    want = gradients(reference.lora_linear, given, cotangent)
    for one, two in zip(gradients(lora_linear, given, cotangent), want, strict=True):
        assert one.shape == two.shape
        torch.testing.assert_close(one, two)


def test_strided_inputs_and_cotangents() -> None:
    given = tensors((6, 4), 10, 8, 2, torch.float64)
    given["x"] = torch.randn(10, 4, 12, dtype=torch.float64).permute(2, 1, 0)[::2].requires_grad_()
    given["a"] = torch.randn(10, 2, dtype=torch.float64).t().requires_grad_()
    for cotangent in (
        torch.randn(8, 4, 6, dtype=torch.float64).permute(2, 1, 0),
        torch.ones(1, dtype=torch.float64),
    ):
        cotangent = cotangent.expand(6, 4, 8)
        want = gradients(reference.lora_linear, given, cotangent)
        for one, two in zip(gradients(lora_linear, given, cotangent), want, strict=True):
            assert error(one, two) < 1e-12


def test_output_may_be_changed_in_place() -> None:
    given = tensors((4,), 6, 5, 2, torch.float64)
    inputs = list(given.values())
    plain = torch.autograd.grad(F.relu(lora_linear(*inputs, 1.0)).sum(), inputs)
    for one, two in zip(
        torch.autograd.grad(lora_linear(*inputs, 1.0).relu_().sum(), inputs), plain, strict=True
    ):
        assert torch.equal(one, two)


def test_wrong_shapes_and_rates_are_refused() -> None:
    x, weight, bias, a, b = tensors((4,), 6, 5, 2, torch.float32).values()
    with pytest.raises(
        ValueError, match=r"cannot take a \(2, 6\) and b \(2, 5\); expected a \(R, 6\) and b \(5, R\)"
    ):
        lora_linear(x, weight, bias, a, b.t(), 1.0)
    with pytest.raises(ValueError, match=r"rows 3:9"):
        lora_linear_slices(x, weight, bias, [(3, 9, a, b, 1.0)])
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        lora_linear(x, weight, bias, a, b, 1.0, dropout=1.5)


# Slices of a fused projection


def slices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int, Tensor, Tensor, float]]]:
    x, weight, bias, a, b = tensors((3, 5), 12, 18, 2, dtype).values()
    parts = [(0, 6, a, b.detach()[:6].clone().requires_grad_(), 0.5)]
    for start, stop, rank, scale in (
        (12, 18, 3, 2.0),
        (4, 14, 1, -1.0),
    ):  # a gap-free pair, then one that overlaps both
        one = tensors((1,), 12, stop - start, rank, dtype)
        parts.append((start, stop, one["a"], one["b"], scale))
    return x, weight, bias, parts


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_slices_equal_the_reference(dtype: torch.dtype, rate: float) -> None:
    x, weight, bias, parts = slices(dtype)
    results = []
    for tier, high in (("eager", dtype), ("reference", torch.float64)):
        use(tier)
        torch.manual_seed(1)
        moved = [
            (i, j, *(t.detach().to(high).requires_grad_() for t in (a, b)), s) for i, j, a, b, s in parts
        ]
        inputs = [t.detach().to(high).requires_grad_() for t in (x, weight, bias)]
        y = lora_linear_slices(*inputs, moved, dropout=rate, training=True)
        results.append(
            [y, *torch.autograd.grad(y.sin().sum(), [*inputs, *(t for p in moved for t in p[2:4])])]
        )
    for one, two in zip(*results, strict=True):
        assert error(one, two) < TOLERANCE[dtype] * 2


def test_rows_without_a_part_are_exactly_the_base() -> None:
    x, weight, bias, parts = slices(torch.float32)
    base = F.linear(x, weight, bias)
    y = lora_linear_slices(x, weight, bias, parts[:2])
    assert torch.equal(y[..., 6:12], base[..., 6:12])
    assert torch.equal(lora_linear_slices(x, weight, bias, []), base)


def test_one_frozen_part_gets_no_gradient() -> None:
    x, weight, bias, parts = slices(torch.float64)
    parts[1][2].requires_grad_(False)
    parts[2][3].requires_grad_(False)
    lora_linear_slices(x, weight, bias, parts).sum().backward()
    assert [t.grad is None for p in parts for t in p[2:4]] == [False, False, True, False, False, True]


# Dropout


def test_dropout_reproduces_and_only_trains() -> None:
    given = tensors((10, 40), 32, 8, 4, torch.float32)
    inputs = list(given.values())

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return lora_linear(*inputs, 1.0, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))
    mean = torch.stack([run(seed, **on) for seed in range(60)]).mean(0)
    delta = run(0) - F.linear(*inputs[:3])
    assert error(mean - F.linear(*inputs[:3]), delta) < 4 * (0.25 / 0.75 / 60) ** 0.5  # unbiased


def test_backward_uses_the_mask_of_the_forward() -> None:
    # y is linear in x, so x . dy/dx = y for the very mask that was drawn
    given = tensors((30,), 16, 8, 4, torch.float64)
    x = given["x"]
    y = lora_linear(x, given["weight"], None, given["a"], given["b"], 1.0, dropout=0.5, training=True)
    torch.randn(3)  # moves the global generator on
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close((gradient * x).sum(), y.sum())


# What is kept, and how much is called


def test_kept_bytes(kept_bytes: Callable[..., int]) -> None:
    rows, width, out, rank = 1024, 512, 256, 8
    given = tensors((rows,), width, out, rank, torch.float32)
    given["weight"].requires_grad_(False)
    x, s = rows * width * 4, rows * rank * 4
    h = given.pop("x")
    frozen = list(given.values())

    def run(recompute: bool = False, **options: Any) -> Tensor:
        act = F.gelu(h)
        return lora_linear(act, *frozen, 1.0, source=activation_source(act) if recompute else None, **options)

    gelu_input = 0  # a leaf here: counted among the parameters
    assert kept_bytes(run, h, *frozen) == gelu_input + x + s
    assert kept_bytes(lambda: run(dropout=0.1, training=True), h, *frozen) == gelu_input + x + s
    assert kept_bytes(lambda: run(True), h, *frozen) == gelu_input + s
    given["a"].requires_grad_(False)
    assert kept_bytes(run, h, *frozen) == gelu_input + s
    given["b"].requires_grad_(False)
    assert kept_bytes(run, h, *frozen) == gelu_input


VIEWS = frozenset({"view", "t", "_unsafe_view", "transpose", "slice", "expand", "alias", "detach"})


class Calls(TorchDispatchMode):
    """Counts operator calls; views cost no work and are counted apart."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[str] = []
        self.views = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in VIEWS:
            self.views += 1
        else:
            self.work.append(name)
        return func(*args, **(kwargs or {}))


def test_calls() -> None:
    given = tensors((2, 7), 16, 8, 4, torch.float32)
    for name in ("weight", "bias"):
        given[name].requires_grad_(False)
    with Calls() as calls:
        y = lora_linear(*given.values(), 2.0)
    base, *thin = sorted(calls.work, key=lambda name: name not in ("addmm", "linear"))
    assert base in ("addmm", "linear") and sorted(thin) == ["addmm_", "mm"]
    assert calls.views <= 8
    with Calls() as calls:
        y.backward(torch.ones_like(y))
    products = [name for name in calls.work if name in ("mm", "addmm", "addmm_")]
    assert sorted(products) == ["addmm", "addmm_", "mm", "mm", "mm"]
    # besides the products: two small buffers and the scaling of b's gradient
    assert len(calls.work) <= len(products) + 3 + 3  # the last three: autograd's own bookkeeping of leaves


# Precision and compilers


def test_autocast_computes_and_returns_as_linear_does() -> None:
    given = tensors((4, 9), 32, 16, 4, torch.float32)
    cotangent = torch.randn(4, 9, 16)
    want = gradients(reference.lora_linear, copies(given, torch.float64), cotangent.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            lora_linear(*given.values(), 0.7).dtype
            == F.linear(given["x"], given["weight"]).dtype
            == torch.bfloat16
        )
        got = gradients(lora_linear, given, cotangent.bfloat16())
    for name, one, two in zip(("y", *given), got, want, strict=True):
        assert one.dtype == (torch.bfloat16 if name == "y" else torch.float32)
        assert error(one, two) < 4 * TOLERANCE[torch.bfloat16], name  # every input is rounded once, too
    with torch.autocast("cpu", torch.bfloat16):
        double = tensors((2,), 4, 3, 1, torch.float64)
        assert lora_linear(*double.values(), 1.0).dtype == torch.float64


def test_backward_inside_autocast_computes_as_the_forward_did() -> None:
    given = tensors((4,), 8, 6, 2, torch.float32)
    y = lora_linear(*given.values(), 1.0)
    plain = torch.autograd.grad(y.sum(), list(given.values()), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(y.sum(), list(given.values()))
    for one, two in zip(plain, inside, strict=True):
        assert torch.equal(one, two)


def test_wide_adapter_on_a_half_model() -> None:
    given = tensors((9,), 32, 16, 4, torch.bfloat16)
    for name in ("a", "b"):
        given[name] = given[name].detach().float().requires_grad_()
    y, d_x, _, _, d_a, d_b = gradients(lora_linear, given, torch.ones(9, 16, dtype=torch.bfloat16))
    assert (y.dtype, d_x.dtype, d_a.dtype, d_b.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    want = gradients(
        reference.lora_linear, copies(given, torch.float64), torch.ones(9, 16, dtype=torch.float64)
    )
    assert error(y, want[0]) < 5e-3 and error(d_a, want[4]) < 1e-2 and error(d_b, want[5]) < 1e-2


def test_compiles_whole() -> None:
    given = tensors((2, 7), 12, 18, 3, torch.float32)
    given["weight"].requires_grad_(False)
    x, weight, bias, parts = slices(torch.float32)

    def model(given: dict[str, Tensor]) -> Tensor:
        h = F.gelu(given["x"])
        y = lora_linear(
            h, *(given[n] for n in ("weight", "bias", "a", "b")), 2.0, source=activation_source(h)
        )
        return y.sum() + lora_linear_slices(x, weight, bias, parts).sin().sum()

    inputs = [t for t in (*given.values(), x, *(t for p in parts for t in p[2:4])) if t.requires_grad]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(given), model(given))
        for one, two in zip(
            torch.autograd.grad(compiled(given), inputs),
            torch.autograd.grad(model(given), inputs),
            strict=True,
        ):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_compiled_dropout_drops() -> None:
    given = tensors((64,), 32, 8, 4, torch.float32)
    compiled = torch.compile(lora_linear, fullgraph=True, backend="aot_eager")
    base = compiled(*given.values(), 1.0)
    assert not torch.equal(compiled(*given.values(), 1.0, dropout=0.5, training=True), base)


def test_functional_transforms() -> None:
    given = tensors((4, 6), 8, 5, 2, torch.float64)
    weight, bias, a, b = (given[n].detach() for n in ("weight", "bias", "a", "b"))

    def loss(a: Tensor, x: Tensor) -> Tensor:
        return lora_linear(x, weight, bias, a, b, 1.0).square().sum()

    x = given["x"].detach()
    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(a, x)
    want = torch.stack([torch.autograd.grad(loss(a.requires_grad_(), one), a)[0] for one in x])
    assert error(per_sample, want) < 1e-12
