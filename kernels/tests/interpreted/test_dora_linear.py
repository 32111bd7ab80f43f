from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases.dora import NAMES, against_float64, tensors
from torch import Tensor

from peftx_kernels import activation_source, dora_linear, dora_norm, lora_linear, row_sq
from peftx_kernels.ops.dora_linear import reference
from peftx_kernels.testing import TOLERANCES, errors, relative_error, within

HALF = (torch.bfloat16, torch.float16)
SHAPES = [  # rows, in, out, rank
    ((1,), 5, 3, 1),
    ((63,), 31, 65, 8),
    ((2, 5, 3), 24, 9, 16),
    ((257,), 48, 80, 24),
    ((7,), 96, 64, 384),
    ((130,), 32, 272, 4),  # several blocks in every direction
]


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_every_gradient(shape: Any, dtype: torch.dtype) -> None:
    given = tensors(*shape, dtype)
    found = against_float64(given)
    assert found.keys() == {"y", *NAMES} and within(found, dtype), found


def test_the_way_over_the_library(route: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        found = against_float64(tensors((65,), 40, 72, 8, dtype))
        assert within(found, dtype), found


def test_bias_may_be_missing(route: str) -> None:
    given: dict[str, Any] = tensors((9,), 24, 20, 4, torch.float32)
    given["bias"] = None
    found = against_float64(given)
    assert "bias" not in found and within(found, torch.float32), found


@pytest.mark.parametrize("recompute", [False, True])
def test_every_choice_of_trained_inputs(recompute: bool) -> None:
    for chosen in itertools.product((False, True), repeat=6):
        given = tensors((4, 3), 6, 5, 2, torch.float32)
        for name, trained in zip(NAMES, chosen, strict=True):
            given[name].requires_grad_(trained)

        def run(op: Callable[..., Tensor], x: Tensor, *rest: Tensor) -> Tensor:
            h = F.gelu(x)
            source = activation_source(h) if recompute and op is dora_linear else None
            return op(h, *rest, 0.7, source=source)

        found = errors(
            lambda **t: run(dora_linear, *t.values()),
            lambda **t: run(reference.dora_linear, *t.values()),
            given,
        )
        assert within(found, torch.float32), (chosen, found)


def test_strided_inputs_and_cotangents() -> None:
    given = tensors((6, 4), 16, 8, 2, torch.float32)
    given["x"] = torch.randn(16, 4, 12).permute(2, 1, 0)[::2].requires_grad_()
    given["a"] = torch.randn(16, 2).t().requires_grad_()
    given["b"] = torch.randn(2, 8).t().requires_grad_()
    given["weight"] = torch.randn(16, 8).t().requires_grad_()
    assert within(against_float64(given), torch.float32)
    given["weight"] = torch.randn(16, 16)[::2].requires_grad_()
    assert within(against_float64(given), torch.float32)
    given["weight"] = torch.randn(8, 32)[:, ::2].requires_grad_()  # no stride of 1
    with torch.no_grad():
        given["magnitude"][1] = 0.0
    assert within(against_float64(given), torch.float32)
    y, want = dora_linear(*given.values(), 0.7), reference.dora_linear(*given.values(), 0.7)
    for cotangent in (torch.randn(8, 4, 6).permute(2, 1, 0), torch.ones(1).expand(6, 4, 8)):
        for one, two in zip(
            torch.autograd.grad(y, list(given.values()), cotangent, retain_graph=True),
            torch.autograd.grad(want, list(given.values()), cotangent, retain_graph=True),
            strict=True,
        ):
            assert relative_error(one, two) < 1e-5


@pytest.mark.parametrize("out", [24, 32])
def test_cotangents_with_long_rows(out: int) -> None:
    """Rows of dY further apart than those of Y, in several blocks; some gates are near zero."""
    given = tensors((150,), 16, out, 2, torch.float32)
    with torch.no_grad():
        given["magnitude"][2] *= 1e-3
    cotangent = torch.randn(150, 48)[:, 8 : 8 + out]
    y, want = dora_linear(*given.values(), 0.7), reference.dora_linear(*given.values(), 0.7)
    for one, two in zip(
        torch.autograd.grad(y, list(given.values()), cotangent),
        torch.autograd.grad(want, list(given.values()), cotangent),
        strict=True,
    ):
        assert relative_error(one, two) < 1e-5


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
def test_empty_and_vector_inputs(rows: tuple[int, ...], route: str) -> None:
    given = tensors(rows, 6, 5, 2, torch.float32)
    found = against_float64(given)
    assert within(found, torch.float32), found
    if 0 in rows:
        y = dora_linear(*given.values(), 0.7)
        assert y.shape == (*rows, 5)
        y.sum().backward()
        for name in ("a", "magnitude", "bias"):
            gradient = given[name].grad
            assert gradient is not None and gradient.abs().sum() == 0


def test_starts_exactly_at_the_base(route: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, weight, bias, a, b, _ = tensors((65,), 64, 48, 8, dtype).values()
        b = torch.zeros_like(b)
        magnitude = row_sq(weight).clamp_min(1e-24).sqrt()
        assert torch.equal(dora_norm(row_sq(weight), weight, a, b, 2.0), magnitude)
        y = dora_linear(x, weight, bias, a, b, magnitude, 2.0, dropout=0.5, training=True)
        assert torch.equal(y, lora_linear(x, weight, bias, a, b, 2.0))
        if route == "library":
            assert torch.equal(y, F.linear(x, weight, bias))


def test_merged_weight_gives_the_same() -> None:
    x, weight, bias, a, b, magnitude = tensors((9,), 20, 12, 4, torch.float32).values()
    merged = weight + 0.5 * b @ a
    merged = merged * (magnitude / merged.norm(dim=1))[:, None]
    y = dora_linear(x, weight, bias, a, b, magnitude, 0.5)
    assert relative_error(y, F.linear(x, merged, bias)) < 1e-6


def test_a_given_norm_changes_nothing() -> None:
    given = tensors((4,), 8, 6, 2, torch.float32)
    base = row_sq(given["weight"])
    norm = dora_norm(base, given["weight"], given["a"], given["b"], 0.7)
    plain = dora_linear(*given.values(), 0.7)
    for options in ({"weight_sq": base}, {"norm": norm}):
        assert torch.equal(dora_linear(*given.values(), 0.7, **options), plain)
    assert relative_error(dora_linear(*given.values(), 0.7, norm=2 * norm) - given["bias"], plain) > 0.1
    with pytest.raises(ValueError, match=r"norm has shape \(5,\); a weight \(6, 8\) needs \(6,\)"):
        dora_linear(*given.values(), 0.7, norm=norm[:5])
    with pytest.raises(ValueError, match=r"magnitude has shape \(5,\)"):
        dora_linear(*list(given.values())[:5], given["magnitude"][:5], 0.7)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_gates_near_zero_keep_their_gradient(dtype: torch.dtype) -> None:
    given = tensors((70,), 40, 21, 18, dtype)
    with torch.no_grad():
        given["magnitude"][:5] *= torch.tensor([0.0, 1e-5, -1e-4, 5e-3, 0.2])
        given["magnitude"][18:] *= 1e-3
    found = against_float64(given)
    assert within(found, dtype), found
    small = torch.cat([torch.arange(5), torch.arange(18, 21)])
    cotangent = torch.randn(70, 21).to(dtype)
    exact = {name: t.detach().double().requires_grad_() for name, t in given.items()}
    dora_linear(**given, scale=0.7).backward(cotangent)
    reference.dora_linear(**exact, scale=0.7).backward(cotangent.double())
    got, want = given["magnitude"].grad, exact["magnitude"].grad
    assert got is not None and want is not None
    assert relative_error(got[small], want[small]) < 2 * TOLERANCES[dtype]


def test_fp32_gates_on_a_half_model() -> None:
    """The trained regime of the Scaling DoRA paper: gates of 1 +- 0.0015, 90 % of which bf16 rounds to 1."""
    given = tensors((64,), 64, 48, 8, torch.bfloat16)
    with torch.no_grad():
        given["b"] *= 0.05
        norm = dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 0.7)
        given["magnitude"].copy_(norm * (1 + 0.0015 * torch.randn(48)))
    assert against_float64(given)["y"] < 3e-3


# Dropout


def test_dropout_is_that_of_lora(route: str) -> None:
    given = tensors((70,), 40, 50, 3, torch.float32)
    with torch.no_grad():
        given["magnitude"][:4] *= 1e-3
    norm = dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 0.7)

    def ours(**t: Tensor) -> Tensor:
        torch.manual_seed(3)
        return dora_linear(**t, scale=0.7, dropout=0.3, training=True)

    def parts(**t: Tensor) -> Tensor:
        torch.manual_seed(3)
        magnitude, bias = t.pop("magnitude"), t.pop("bias")
        inner = lora_linear(
            **{n: v.float() for n, v in t.items()}, bias=None, scale=0.7, dropout=0.3, training=True
        )
        return (magnitude / norm) * inner.double() + bias

    found = errors(ours, parts, given)
    assert len(found) == 7 and within(found, torch.float32), found


def test_dropout_reproduces_and_only_trains() -> None:
    given = list(tensors((10,), 32, 8, 4, torch.float32).values())

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return dora_linear(*given, 1.0, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        run(1, dropout=1.5)
