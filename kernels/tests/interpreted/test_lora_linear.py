from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from kernel_cases.lora import tensors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from peftx_kernels import activation_source, lora_linear, lora_linear_slices
from peftx_kernels.dropout import kept_fraction
from peftx_kernels.ops.lora_linear import reference
from peftx_kernels.ops.lora_linear.mask import keep
from peftx_kernels.testing import TOLERANCES, errors, relative_error, within

HALF = (torch.bfloat16, torch.float16)
SHAPES = [  # rows, in, out, rank
    ((1,), 5, 3, 1),
    ((63,), 31, 65, 8),
    ((2, 5, 3), 24, 9, 16),
    ((257,), 48, 80, 24),
    ((7,), 96, 64, 384),
    ((300,), 32, 272, 4),  # several tiles and pieces in every direction
]


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_every_gradient(shape: Any, dtype: torch.dtype) -> None:
    found = errors(lora_linear, reference.lora_linear, tensors(*shape, dtype), scale=0.7)
    assert found.keys() == {"y", "x", "weight", "bias", "a", "b"} and within(found, dtype), found


def test_the_way_over_the_library(route: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        found = errors(lora_linear, reference.lora_linear, tensors((65,), 40, 72, 8, dtype), scale=0.7)
        assert within(found, dtype), found


def test_every_choice_of_trained_inputs() -> None:
    names = ("x", "weight", "bias", "a", "b")
    for chosen in itertools.product((False, True), repeat=5):
        given = tensors((4, 3), 6, 5, 2, torch.float32)
        for name, trained in zip(names, chosen, strict=True):
            given[name].requires_grad_(trained)
        assert within(errors(lora_linear, reference.lora_linear, given, scale=1.3), torch.float32), chosen


def test_strided_inputs_and_cotangents() -> None:
    given = tensors((6, 4), 16, 8, 2, torch.float32)
    given["x"] = torch.randn(16, 4, 12).permute(2, 1, 0)[::2].requires_grad_()
    given["a"] = torch.randn(16, 2).t().requires_grad_()
    given["weight"] = torch.randn(16, 8).t().requires_grad_()
    assert within(errors(lora_linear, reference.lora_linear, given, scale=0.7), torch.float32)
    y = lora_linear(*given.values(), 0.7)
    want = reference.lora_linear(*given.values(), 0.7)
    for cotangent in (torch.randn(8, 4, 6).permute(2, 1, 0), torch.ones(1).expand(6, 4, 8)):
        for one, two in zip(
            torch.autograd.grad(y, list(given.values()), cotangent, retain_graph=True),
            torch.autograd.grad(want, list(given.values()), cotangent, retain_graph=True),
            strict=True,
        ):
            assert relative_error(one, two) < 1e-5


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
def test_empty_and_vector_inputs(rows: tuple[int, ...], route: str) -> None:
    given = tensors(rows, 6, 5, 2, torch.float32)
    found = errors(lora_linear, reference.lora_linear, given, scale=1.0)
    assert within(found, torch.float32), found
    if 0 in rows:
        y = lora_linear(*given.values(), 1.0)
        assert y.shape == (*rows, 5)
        y.sum().backward()
        assert given["a"].grad is not None and given["a"].grad.abs().sum() == 0


def test_zero_b_is_exactly_the_base(route: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, weight, bias, a, b = tensors((65,), 64, 48, 8, dtype).values()
        b = torch.zeros_like(b)
        base = F.linear(x, weight, bias)
        y = lora_linear(x, weight, bias, a, b, 2.0, dropout=0.5, training=True)
        if route == "library":
            assert torch.equal(y, base)
        assert relative_error(y, base) < TOLERANCES[dtype]
        assert torch.equal(y, lora_linear(x, weight, bias, 0 * a, b, 2.0))


def test_merged_weight_gives_the_same() -> None:
    x, weight, bias, a, b = tensors((9,), 20, 12, 4, torch.float32).values()
    assert (
        relative_error(lora_linear(x, weight, bias, a, b, 0.5), F.linear(x, weight + 0.5 * b @ a, bias))
        < 1e-6
    )


# Slices of a fused projection


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_slices(dtype: torch.dtype, route: str) -> None:
    given, call = apart(dtype)
    found = errors(call(lora_linear_slices), call(reference.lora_linear_slices), given)
    assert len(found) == 10 and within(found, dtype), found


def test_slices_of_high_rank() -> None:
    x, weight, bias, *_ = tensors((9,), 48, 96, 1, torch.float32).values()
    given = {"x": x, "weight": weight, "bias": bias}
    for number, rank in enumerate((80, 16, 17)):
        one = tensors((1,), 48, 32, rank, torch.float32)
        given |= {f"a{number}": one["a"], f"b{number}": one["b"]}

    def run(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, weight, bias, **f: op(
            x, weight, bias, [(32 * n, 32 * n + 32, f[f"a{n}"], f[f"b{n}"], 0.5 + n) for n in range(3)]
        )

    found = errors(run(lora_linear_slices), run(reference.lora_linear_slices), given)
    assert within(found, torch.float32), found


def test_one_frozen_part_gets_no_gradient() -> None:
    given, call = apart(torch.float32)
    given["a1"].requires_grad_(False)
    given["b2"].requires_grad_(False)
    found = errors(call(lora_linear_slices), call(reference.lora_linear_slices), given)
    assert "a1" not in found and "b2" not in found and within(found, torch.float32), found


# Dropout


def mask_of(seed: int, rows: int, width: int, rate: float) -> Tensor:
    """Philox with seven rounds after its paper, in Python's integers: 16 bits an entry."""
    kept = torch.empty(rows, -(-width // 8) * 8, dtype=torch.bool)
    order = (0, 2, 1, 3)  # of the four words
    for t in range(rows):
        for group in range(kept.shape[1] // 8):
            c, k = [t, group, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
            for _ in range(7):
                high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
                high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
                c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
                k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
            levels = [half for word in order for half in (c[word] & 0xFFFF, c[word] >> 16)]
            for place, level in enumerate(levels):
                kept[t, 8 * group + place] = level >= round((1 - kept_fraction(rate)) * 65536)
    return kept[:, :width]


def dropped_reference(
    x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, mask: Tensor, rate: float, scale: float
) -> Tensor:
    return F.linear(x, weight, bias) + scale / kept_fraction(rate) * (x * mask) @ a.t() @ b.t()


@pytest.mark.parametrize(("rows", "width"), [(9, 21), (70, 40)])
def test_one_mask_in_all_kernels(rows: int, width: int, route: str) -> None:
    """The mask is a function of seed and place alone, whatever the tiles: checked against Philox in plain integers."""
    torch.manual_seed(3)
    seed = int(torch.randint(1 << 62, ()))
    mask = mask_of(seed, rows, width, 0.3)
    assert 0.6 < mask.float().mean() < 0.8

    def ours(**given: Tensor) -> Tensor:
        torch.manual_seed(3)
        y = lora_linear(**given, scale=0.7, dropout=0.3, training=True)
        torch.randn(5)  # moves the generator on
        return y

    def exact(**given: Tensor) -> Tensor:
        return dropped_reference(**given, mask=mask.double(), rate=0.3, scale=0.7)

    for rank in (3, 70):
        found = errors(ours, exact, tensors((rows,), width, 50, rank, torch.float32))
        assert within(found, torch.float32), found


@triton.jit
def _draw(out, seed, dropped, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK
    place = out + t[:, None] * 256 + column + tl.arange(0, BLOCK)[None, :]
    tl.store(place, keep(seed, dropped, t, column, BLOCK, BLOCK).to(tl.int8))


def test_statistics_of_the_mask() -> None:
    """Frequencies, rows, columns and neighbours of 2^16 draws, each within five standard errors."""
    rate = 6554 / 65536
    masks = []
    for seed in (1, 2, (1 << 61) + 1):
        out = torch.empty(256, 256, dtype=torch.int8)
        _draw[(2, 2)](out, seed, 6554, BLOCK=128)
        masks.append(out.double())
    small = torch.empty(256, 256, dtype=torch.int8)
    _draw[(4, 4)](small, 1, 6554, BLOCK=64)
    assert torch.equal(small.double(), masks[0])
    spread = (rate * (1 - rate)) ** 0.5
    for mask in masks:
        centred = mask - (1 - rate)
        assert abs(centred.mean()) < 5 * spread / 256
        for side in (0, 1):
            assert (centred.mean(side).abs() < 5 * spread / 16).all()
            assert abs(centred.mean(side).square().mean() / (spread**2 / 256) - 1) < 5 * (2 / 256) ** 0.5
        for down, across in ((0, 1), (0, 2), (0, 4), (0, 8), (1, 0), (1, 1)):
            pairs = centred[down:, across:] * centred[: 256 - down, : 256 - across]
            assert abs(pairs.mean()) < 5 * spread**2 / 256 * 1.1
    for one, two in itertools.combinations(masks, 2):
        assert abs(((one - one.mean()) * (two - two.mean())).mean()) < 5 * spread**2 / 256


def test_dropout_reproduces_and_only_trains() -> None:
    given = list(tensors((10,), 32, 8, 4, torch.float32).values())

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return lora_linear(*given, 1.0, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))


def test_checkpointing_draws_the_mask_again() -> None:
    given = tensors((9,), 8, 5, 2, torch.float32)
    results = []
    for checked in (False, True):
        torch.manual_seed(1)

        def block(*tensors: Tensor) -> Tensor:
            h = F.gelu(tensors[0])
            return lora_linear(
                h, *tensors[1:], 1.0, dropout=0.5, training=True, source=activation_source(h)
            ).tanh()

        y = checkpoint(block, *given.values(), use_reentrant=False) if checked else block(*given.values())
        results.append(torch.autograd.grad(y.sum(), list(given.values())))
    for one, two in zip(*results, strict=True):
        assert relative_error(one, two) < 1e-6
