from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases.bottleneck import own, tensors
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from peftx_kernels import bottleneck, use
from peftx_kernels.ops.bottleneck import reference
from peftx_kernels.ops.bottleneck.check import ACTIVATIONS
from peftx_kernels.testing import TOLERANCES, errors, relative_error

SHAPES = [  # rows, width, units
    ((1,), 45, 23),
    ((63,), 31, 8),
    ((2, 5, 3), 24, 9),
    ((257,), 48, 30),
    ((7,), 130, 64),
    ((3, 11), 20, 256),
]


def allowed(name: str, dtype: torch.dtype, activation: str) -> float:
    tolerance = TOLERANCES[dtype] * (1 if name == "y" else 2)
    half = dtype in (torch.bfloat16, torch.float16)
    if name == "scale":  # one sum, in which most of what is added cancels: see the test of its own
        return float("inf") if half else 10 * tolerance
    if activation == "relu" and half and name not in ("y", "up", "up_bias", "residual"):
        return 0.2  # a hidden value within rounding of 0 falls on the other side of the corner
    return tolerance


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", [False, True], ids=["bare", "norm"])
def test_value_and_every_gradient(shape: Any, dtype: torch.dtype, norm: bool) -> None:
    for activation in ACTIVATIONS:
        for separate in (False, True):
            given = tensors(*shape, dtype, norm=norm, separate=separate)
            options = {"activation": activation, "norm_eps": 1e-6 if norm else None}
            ops = bottleneck, reference.bottleneck
            found = errors(*(ops if separate else map(own, ops)), given, **options)
            wrong = {k: v for k, v in found.items() if not v < allowed(k, dtype, activation)}
            assert not wrong, (activation, separate, wrong)


def test_every_choice_of_trained_inputs() -> None:
    names = list(tensors((2, 3), 6, 5, torch.float64))
    for trained in range(1, 2 ** len(names), 3):
        norm, separate, learned = trained % 2 == 0, trained % 5 < 3, trained % 7 < 4
        given = tensors((2, 3), 6, 5, torch.float64, norm=norm, separate=separate, learned=learned)
        for bit, name in enumerate(names):
            if name in given:
                given[name].requires_grad_(bool(trained >> bit & 1))
        options: dict[str, Any] = {"activation": ACTIVATIONS[trained % 4], "norm_eps": 1e-6 if norm else None}
        ops = bottleneck, reference.bottleneck
        found = errors(*(ops if separate else map(own, ops)), given, **options)
        assert max(found.values()) < 1e-11, (trained, found)


@pytest.mark.parametrize(
    "without", ["down_bias", "up_bias", "residual", "norm_weight", "norm_bias", "scale", "all"]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_without_what_is_optional(without: str, dtype: torch.dtype) -> None:
    given = tensors((9,), 20, 24, dtype)
    for name in list(given):
        if name == without or (without == "all" and name not in ("h", "down", "up")):
            del given[name]
    eps = None if without == "all" else 1e-6
    found = errors(bottleneck, reference.bottleneck, given, norm_eps=eps)
    assert all(v < allowed(k, dtype, "gelu") for k, v in found.items()), found


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_gradient_of_a_learned_scale(dtype: torch.dtype) -> None:
    """Of a mean of o^2, whose gradient is a sum of squares: nothing cancels."""
    given = {k: t.detach() for k, t in tensors((63,), 40, 30, dtype, separate=False).items()}
    found = []
    for op, high in ((bottleneck, dtype), (reference.bottleneck, torch.float64)):
        moved = {k: t.to(high, copy=True) for k, t in given.items()}
        scale = moved["scale"].requires_grad_()
        op(**moved, norm_eps=1e-6).double().square().mean().backward()
        found.append(scale.grad)
    assert relative_error(*found) < 2 * TOLERANCES[dtype]


def test_the_plain_composition_is_the_same() -> None:
    given = tensors((4, 7), 12, 6, torch.float64)
    h, down, up, down_bias, up_bias, residual, gamma, beta, scale = given.values()
    z = F.layer_norm(h, (12,), gamma, beta, 1e-5)
    want = residual + scale * F.linear(F.gelu(F.linear(z, down, down_bias)), up, up_bias)
    assert relative_error(bottleneck(**given, norm_eps=1e-5), want) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("separate", [False, True])
def test_zero_up_is_exactly_the_residual(dtype: torch.dtype, separate: bool) -> None:
    given = tensors((5, 7), 64, 8, dtype, separate=separate)
    with torch.no_grad():
        given["up"].zero_()
        given["up_bias"].zero_()
    op = bottleneck if separate else own(bottleneck)
    for rate in (0.0, 0.5):
        o = op(**given, norm_eps=1e-6, dropout=rate, training=True)
        assert torch.equal(o, given["residual" if separate else "h"])


def test_relu_has_no_gradient_at_zero() -> None:
    h, down, up = torch.ones(1, 2, requires_grad=True), torch.tensor([[1.0, -1.0]]), torch.ones(2, 1)
    (gradient,) = torch.autograd.grad(bottleneck(h, down, up, activation="relu").sum(), h)
    assert torch.equal(gradient, torch.zeros(1, 2))


def test_the_residual_gets_the_very_gradient() -> None:
    given = tensors((4,), 6, 5, torch.float32)
    passed: list[Tensor] = []
    residual = given["residual"] * 1.0
    residual.register_hook(passed.append)
    cotangent = torch.randn(4, 6)
    bottleneck(**given | {"residual": residual}, norm_eps=1e-6).backward(cotangent)
    assert passed[0].data_ptr() == cotangent.data_ptr()


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
@pytest.mark.parametrize("separate", [False, True])
def test_empty_and_vector_inputs(rows: tuple[int, ...], separate: bool) -> None:
    given = tensors(rows, 6, 5, torch.float64, separate=separate)
    ops = bottleneck, reference.bottleneck
    found = errors(*(ops if separate else map(own, ops)), given, norm_eps=1e-6)
    assert max(found.values()) < 1e-12, found
    assert ops[0](**given, norm_eps=1e-6).shape == (*rows, 6)


def test_strided_inputs_and_cotangents() -> None:
    given = tensors((6, 4), 10, 20, torch.float64)
    given["h"] = torch.randn(10, 4, 12, dtype=torch.float64).permute(2, 1, 0)[::2].requires_grad_()
    given["residual"] = torch.randn(10, 4, 6, dtype=torch.float64).permute(2, 1, 0).requires_grad_()
    given["down"] = torch.randn(10, 20, dtype=torch.float64).t().requires_grad_()
    for cotangent in (
        torch.randn(10, 4, 6, dtype=torch.float64).permute(2, 1, 0),
        torch.ones(1, dtype=torch.float64),
    ):
        cotangent = cotangent.expand(6, 4, 10)
        results = []
        for op in (bottleneck, reference.bottleneck):
            o = op(**given, norm_eps=1e-6)
            results.append([o, *torch.autograd.grad(o, list(given.values()), cotangent)])
        for one, two in zip(*results, strict=True):
            assert relative_error(one, two) < 1e-12


@pytest.mark.parametrize("separate", [False, True])
def test_output_may_be_changed_in_place(separate: bool) -> None:
    given = tensors((4,), 6, 5, torch.float64, separate=separate)
    op = bottleneck if separate else own(bottleneck)
    inputs = list(given.values())
    plain = torch.autograd.grad(F.relu(op(**given, norm_eps=1e-6)).sum(), inputs)
    changed = torch.autograd.grad(op(**given, norm_eps=1e-6).relu_().sum(), inputs)
    for one, two in zip(changed, plain, strict=True):
        assert torch.equal(one, two)


def test_wrong_calls_are_refused() -> None:
    given = tensors((4,), 6, 5, torch.float32)
    for change, said in (
        ({"up": given["up"].t()}, r"down \(5, 6\) and up \(5, 6\) do not fit h \(4, 6\)"),
        ({"activation": "gelu_new"}, "'gelu_new'; expected one of relu, gelu, gelu_tanh, silu"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
        ({"residual": torch.ones(6)}, r"residual has shape \(6,\); expected \(4, 6\)"),
        ({"down_bias": torch.ones(6)}, r"down_bias has shape \(6,\); expected \(5,\)"),
        ({"scale": torch.ones(2)}, r"scale has shape \(2,\); expected one value"),
        ({"norm_eps": None}, "give its norm_eps as well"),
    ):
        with pytest.raises(ValueError, match=said):
            bottleneck(**{"norm_eps": 1e-6} | given | change)


# Dropout


@pytest.mark.parametrize("separate", [False, True])
def test_dropout_equals_the_reference(separate: bool) -> None:
    given = tensors((30,), 16, 24, torch.float64, separate=separate)

    def seeded(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(**options: Any) -> Tensor:
            torch.manual_seed(5)
            return (op if separate else own(op))(**options, dropout=0.3, training=True)

        return run

    found = errors(seeded(bottleneck), seeded(reference.bottleneck), given, norm_eps=1e-6)
    assert max(found.values()) < 1e-11, found


def test_dropout_reproduces_and_only_trains() -> None:
    given = tensors((10, 40), 32, 8, torch.float32)

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return bottleneck(**given, norm_eps=1e-6, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))
    mean = torch.stack([run(seed, **on) for seed in range(60)]).mean(0)
    branch = run(0) - given["residual"]
    assert relative_error(mean - given["residual"], branch) < 4 * (0.25 / 0.75 / 60) ** 0.5  # unbiased


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_checkpointing(reentrant: bool) -> None:
    given = tensors((9,), 6, 20, torch.float64)
    inputs = list(given.values())

    def block(*values: Tensor) -> Tensor:
        options = dict(zip(given, values, strict=True))
        return bottleneck(**options, norm_eps=1e-6, dropout=0.5, training=True).sin()

    torch.manual_seed(2)
    plain = torch.autograd.grad(block(*inputs).sum(), inputs)
    torch.manual_seed(2)
    y = checkpoint(block, *inputs, use_reentrant=reentrant)
    y.sum().backward()
    for one, two in zip(inputs, plain, strict=True):
        assert one.grad is not None and torch.equal(one.grad, two)


# Precision and compilers


def test_autocast_keeps_the_residual_stream() -> None:
    given = tensors((4, 9), 32, 16, torch.float32)
    want = reference.bottleneck(**{k: t.detach().double() for k, t in given.items()}, norm_eps=1e-6)
    for separate in (True, False):
        arguments = given if separate else {k: t for k, t in given.items() if k != "residual"}
        op = bottleneck if separate else own(bottleneck)
        ops = op, (reference.bottleneck if separate else own(reference.bottleneck))
        with torch.autocast("cpu", torch.bfloat16):
            o = op(**arguments, norm_eps=1e-6)
            assert o.dtype == torch.float32
            assert bottleneck(given["h"], given["down"], given["up"]).dtype == torch.bfloat16
        found = errors(under_autocast(ops[0]), ops[1], arguments, norm_eps=1e-6)
        assert all(v < 4 * allowed(k, torch.bfloat16, "gelu") for k, v in found.items()), found
    assert relative_error(bottleneck(**given, norm_eps=1e-6), want) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        double = tensors((2,), 4, 3, torch.float64)
        assert bottleneck(**double, norm_eps=1e-6).dtype == torch.float64


def under_autocast(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(**options: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return op(**options)

    return run


def test_backward_inside_autocast_computes_as_the_forward_did() -> None:
    given = tensors((4,), 8, 6, torch.float32)
    o = bottleneck(**given, norm_eps=1e-6)
    plain = torch.autograd.grad(o.sum(), list(given.values()), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(o.sum(), list(given.values()))
    for one, two in zip(plain, inside, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("residual", [torch.bfloat16, torch.float32], ids=str)
def test_wide_adapter_on_a_half_model(residual: torch.dtype) -> None:
    given = tensors((40,), 32, 16, torch.bfloat16)
    for name in given:
        if name not in ("h", "residual"):
            given[name] = given[name].detach().float().requires_grad_()
    given["residual"] = given["residual"].detach().to(residual).requires_grad_()
    o = bottleneck(**given, norm_eps=1e-6)
    assert o.dtype == residual
    o.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == t.dtype for t in given.values())
    found = errors(bottleneck, reference.bottleneck, given, norm_eps=1e-6)
    assert all(v < allowed(k, torch.bfloat16, "gelu") for k, v in found.items()), found


def test_the_norm_of_a_half_model_is_not_rounded() -> None:
    """gamma = 1 + 0.001 is 1 in bf16; beside bf16 activations it stays what it is."""
    given = tensors((200,), 64, 16, torch.bfloat16)
    given["h"] = (given["h"].detach() + 30).requires_grad_()  # a mean of 30 deviations
    for name in ("norm_weight", "norm_bias"):
        given[name] = torch.full((64,), 1.001 if name == "norm_weight" else 0.0, requires_grad=True)
    found = errors(bottleneck, reference.bottleneck, given, norm_eps=1e-6)
    assert all(v < allowed(k, torch.bfloat16, "gelu") for k, v in found.items()), found


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole_twice_in_one_graph(backend: str) -> None:
    given = tensors((2, 7), 12, 18, torch.float32)
    inputs = list(given.values())

    def model(given: dict[str, Tensor]) -> Tensor:
        h = bottleneck(**given, norm_eps=1e-6)
        rest = {k: t for k, t in given.items() if k not in ("h", "residual")}
        return bottleneck(h, residual=h, **rest, activation="relu", norm_eps=1e-6).sin()

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    got, want = compiled(given), model(given)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(o.sum(), inputs) for o in (got, want)]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_compiled_dropout_drops() -> None:
    given = tensors((64,), 32, 8, torch.float32)
    compiled = torch.compile(bottleneck, fullgraph=True, backend="aot_eager")
    plain = compiled(**given, norm_eps=1e-6)
    assert not torch.equal(compiled(**given, norm_eps=1e-6, dropout=0.5, training=True), plain)


def test_without_data() -> None:
    """Shapes alone are enough for a memory estimate (meta) and for an exporter (fake tensors)."""
    given = {
        k: t.detach().to("meta").requires_grad_() for k, t in tensors((4, 3), 6, 5, torch.float32).items()
    }
    o = bottleneck(**given, norm_eps=1e-6)
    o.sum().backward()
    assert o.is_meta and o.shape == (4, 3, 6)
    assert all(t.grad is not None and t.grad.shape == t.shape for t in given.values())
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert bottleneck(**tensors((4, 3), 6, 5, torch.float32), norm_eps=1e-6).shape == (4, 3, 6)


def test_without_gradients() -> None:
    given = {k: t.detach() for k, t in tensors((4,), 6, 5, torch.float32).items()}
    plain = bottleneck(**given, norm_eps=1e-6)
    with torch.inference_mode():
        again = {k: t.clone() for k, t in given.items()}
        assert torch.equal(bottleneck(**again, norm_eps=1e-6), plain)


def test_functional_transforms() -> None:
    given = {k: t.detach() for k, t in tensors((4, 6), 8, 5, torch.float64).items()}
    rest = {k: t for k, t in given.items() if k not in ("h", "residual", "down")}

    def loss(down: Tensor, h: Tensor) -> Tensor:
        return bottleneck(h, down, residual=h, norm_eps=1e-6, **rest).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(given["down"], given["h"])
    down = given["down"].clone().requires_grad_()
    want = torch.stack([torch.autograd.grad(loss(down, one), down)[0] for one in given["h"]])
    assert relative_error(per_sample, want) < 1e-12


def test_reference_can_be_chosen() -> None:
    given = tensors((4,), 6, 5, torch.float32)
    use("bottleneck=reference")
    assert (
        relative_error(bottleneck(**given, norm_eps=1e-6), reference.bottleneck(**given, norm_eps=1e-6)) == 0
    )
