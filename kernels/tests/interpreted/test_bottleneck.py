"""The bottleneck adapter's kernels, through Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases.bottleneck import own, tensors
from torch import Tensor

from peftx_kernels import bottleneck
from peftx_kernels.dropout import kept_fraction
from peftx_kernels.ops.bottleneck import launch, reference
from peftx_kernels.ops.bottleneck.check import ACTIVATIONS
from peftx_kernels.testing import TOLERANCES, errors, relative_error

HALF = (torch.bfloat16, torch.float16)
SHAPES = [  # rows, width, units
    ((1,), 45, 23),
    ((63,), 31, 8),
    ((2, 5, 3), 24, 1),
    ((257,), 33, 30),
    ((7,), 130, 64),
    ((35,), 144, 16),  # rows that are read in vectors
]


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library form must not stand in for the kernels."""
    monkeypatch.setattr("peftx_kernels.ops.bottleneck.op._Bottleneck", None)


pytestmark = pytest.mark.usefixtures("no_library")


def compare(given: dict[str, Tensor], *, times: float = 1.0, **options: Any) -> None:
    """Value and every gradient; h is the residual where none is given."""
    options = {"norm_eps": 1e-6 if "norm_weight" in given else None} | options
    ops = (bottleneck, reference.bottleneck)
    found = errors(*(ops if "residual" in given else map(own, ops)), given, **options)
    assert found.keys() == {"y"} | {name for name, t in given.items() if t.requires_grad}
    dtype, wrong = given["h"].dtype, {}
    single = {name for name, t in given.items() if t.numel() == 1}
    single |= {"norm_bias"} & given.keys() if len(given["down"]) == 1 else set()
    for name, error in found.items():
        most = times * TOLERANCES[dtype] * (1 if name == "y" else 2)
        if name in single:  # one sum, in which most of what is added cancels
            most *= float("inf") if dtype in HALF else 10
        elif options.get("activation") == "relu" and dtype in HALF and name not in ("y", "residual"):
            most = 0.2  # a hidden value within rounding of 0 falls on the other side of the corner
        if not error <= most:
            wrong[name] = error
    assert not wrong, wrong


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_every_gradient(shape: Any, dtype: torch.dtype) -> None:
    compare(tensors(*shape, dtype))
    compare(tensors(*shape, dtype, norm=False, separate=False)) if shape[0] != (257,) else None


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for norm in (False, True):
            compare(tensors((19,), 40, 24, dtype, norm=norm, separate=norm), activation=activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_far_from_zero_and_without_a_number(activation: str) -> None:
    """Large values of either sign saturate and do not overflow, at 0 the slope is torch's, NaN stays NaN."""
    u = torch.tensor([-1e4, -100.0, -20.0, -1e-4, 0.0, 1e-4, 20.0, 100.0, 1e4, float("nan")])
    h = u[:, None].clone().requires_grad_()
    one = torch.ones(1, 1)
    exact = h.detach().double().requires_grad_()
    o, want = bottleneck(h, one, one, activation=activation), getattr(F, activation.removesuffix("_tanh"))
    want = want(exact, approximate="tanh") if activation == "gelu_tanh" else want(exact)
    torch.testing.assert_close(o.double(), want, rtol=1e-6, atol=1e-10, equal_nan=True)
    got, slopes = torch.autograd.grad(o.sum(), h)[0], torch.autograd.grad(want.sum(), exact)[0]
    torch.testing.assert_close(got[:-1].double(), slopes[:-1], rtol=1e-5, atol=1e-7)


TILES = [  # rows, units, type
    ("many", 70, 40, torch.float16),
    ("few", 35, 64, torch.bfloat16),
    ("wide", 33, 72, torch.bfloat16),
    ("wide", 19, 256, torch.float16),
    ("exact", 40, 64, torch.float32),
]


@pytest.mark.parametrize(("name", "rows", "units", "dtype"), TILES, ids=str)
def test_every_tile(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: int, units: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(launch, "_MANY", 64)
    assert launch.configuration(rows, 80, units, dtype) == launch.TILES[name]
    compare(tensors((rows,), 80, units, dtype, norm=rows != 35, separate=rows != 35))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [48, 49])
def test_sums_in_shares_of_the_rows(monkeypatch: pytest.MonkeyPatch, width: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr(launch, "_PROGRAMS", 1000)
    seen = []
    grid = type(launch.weights).__getitem__

    def watched(kernel: Any, shape: Any) -> Any:
        seen.append(shape)
        return grid(kernel, shape)

    monkeypatch.setattr(type(launch.weights), "__getitem__", watched)
    compare(tensors((130,), width, 8, dtype))
    assert max(shape[2] for shape in seen if len(shape) == 3) > 2


def test_every_choice_of_trained_inputs() -> None:
    names = list(tensors((2, 3), 6, 5, torch.float32))
    for trained in range(1, 2 ** len(names), 17):
        norm, separate, learned = trained % 2 == 0, trained % 5 < 3, trained % 7 < 4
        given = tensors((2, 3), 6, 5, torch.float32, norm=norm, separate=separate, learned=learned)
        for bit, name in enumerate(names):
            if name in given:
                given[name].requires_grad_(bool(trained >> bit & 1))
        compare(
            given, activation=ACTIVATIONS[trained % 4], times=10
        )  # some are sums of a few values that cancel


@pytest.mark.parametrize(
    "without", ["down_bias", "up_bias", "residual", "norm_weight", "norm_bias", "scale", "all"]
)
def test_without_what_is_optional(without: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        given = tensors((9,), 32, 24, dtype)
        for name in list(given):
            if name == without or (without == "all" and name not in ("h", "down", "up")):
                del given[name]
        options = {"norm_eps": None if without == "all" else 1e-6}
        found = errors(bottleneck, reference.bottleneck, given, **options)
        found.pop("scale", None)
        assert all(v < TOLERANCES[dtype] * (1 if k == "y" else 2) for k, v in found.items()), found
        compare(given, scale=-0.3, norm_eps=None) if without == "all" else None


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
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


# Exact statements


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("separate", [False, True])
def test_zero_up_is_exactly_the_residual(dtype: torch.dtype, separate: bool) -> None:
    given = tensors((5, 7), 64, 8, dtype, separate=separate)
    with torch.no_grad():
        given["up"].zero_()
        given["up_bias"].zero_()
    for rate in (0.0, 0.5):
        o = (bottleneck if separate else own(bottleneck))(**given, norm_eps=1e-6, dropout=rate, training=True)
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


def test_the_same_bits_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_PROGRAMS", 1000)
    given = tensors((70,), 48, 8, torch.bfloat16)
    cotangent = torch.randn(70, 48).bfloat16()
    first, second = (
        torch.autograd.grad(bottleneck(**given, norm_eps=1e-6), list(given.values()), cotangent)
        for _ in range(2)
    )
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("separate", [False, True])
def test_output_may_be_changed_in_place(separate: bool) -> None:
    given = tensors((4,), 6, 5, torch.float32, separate=separate)
    op, inputs = bottleneck if separate else own(bottleneck), list(given.values())
    plain = torch.autograd.grad(F.relu(op(**given, norm_eps=1e-6)).sum(), inputs)
    changed = torch.autograd.grad(op(**given, norm_eps=1e-6).relu_().sum(), inputs)
    assert all(torch.equal(one, two) for one, two in zip(changed, plain, strict=True))


# Layouts


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
@pytest.mark.parametrize("separate", [False, True])
def test_empty_and_vector_inputs(rows: tuple[int, ...], separate: bool) -> None:
    given = tensors(rows, 6, 5, torch.float32, separate=separate)
    compare(given, times=10)
    assert bottleneck(**given, norm_eps=1e-6).shape == (*rows, 6)


@pytest.mark.parametrize("norm", [False, True])
def test_strided_inputs_and_cotangents(norm: bool) -> None:
    given = tensors((6, 4), 32, 24, torch.float32, norm=norm)

    def leaf(t: Tensor) -> Tensor:
        return t.requires_grad_()

    given["h"] = leaf(torch.randn(32, 4, 12).permute(2, 1, 0)[::2])
    given["residual"] = leaf(torch.randn(32, 4, 6).permute(2, 1, 0))
    given["down"], given["up"] = leaf(torch.randn(32, 24).t()), leaf(torch.randn(24, 32).t())
    for name in given.keys() & {"down_bias", "up_bias", "norm_weight", "norm_bias"}:
        given[name] = leaf(torch.randn(2 * len(given[name]))[1::2])
    for cotangent in (torch.randn(32, 4, 6).permute(2, 1, 0), torch.ones(1).expand(6, 4, 32)):
        results = []
        for op in (bottleneck, reference.bottleneck):
            o = op(**given, norm_eps=1e-6 if norm else None)
            results.append([o, *torch.autograd.grad(o, list(given.values()), cotangent)])
        for one, two in zip(*results, strict=True):
            assert relative_error(one, two) < 2e-5


def test_tensors_in_the_middle_of_others() -> None:
    """Addresses that are no multiple of 16 bytes."""
    dtype = torch.bfloat16
    plain = {k: t.detach() for k, t in tensors((9,), 32, 16, dtype).items()}
    moved = {}
    for name, t in plain.items():
        moved[name] = torch.zeros(t.numel() + 1, dtype=dtype)[1:].view(t.shape).copy_(t).requires_grad_()
        plain[name] = t.requires_grad_()
    cotangent = torch.zeros(9 * 32 + 1, dtype=dtype)[1:].view(9, 32).normal_()
    results = []
    for given in (plain, moved):
        o = bottleneck(**given, norm_eps=1e-6)
        results.append([o, *torch.autograd.grad(o, list(given.values()), cotangent)])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


# The norm


@pytest.mark.parametrize("kind", ["mean", "outlier"])
def test_the_norm_of_uncommon_rows(kind: str) -> None:
    """A mean of 30 deviations; one value of 3000 in the first tile, from whose mean the statistics start."""
    for dtype in (torch.float32, torch.bfloat16):
        given = tensors((17,), 160, 16, dtype)
        with torch.no_grad():
            given["h"].add_(30) if kind == "mean" else given["h"][:, 3].fill_(3000.0)
        for name in ("norm_weight", "norm_bias"):  # in fp32: 1.001 is 1 in bfloat16
            given[name] = torch.full((160,), 1.001 if name == "norm_weight" else 0.0, requires_grad=True)
        compare(given, times=2 if kind == "outlier" else 1)


def test_what_is_added_to_the_variance() -> None:
    compare(tensors((9,), 20, 8, torch.float32), norm_eps=0.3)


def test_rows_of_small_deviation_do_not_overflow() -> None:
    """In fp16 dU / deviation is more than 65504 here; dH, which has lost the deviation's part, is not."""
    given = tensors((9,), 32, 16, torch.float16, separate=False)
    with torch.no_grad():
        given["h"].copy_(torch.randn(9, 32) * 1e-4)
        given["down"].mul_(1e-3)
        given["up"].mul_(100.0)
        given["down_bias"].zero_()
        given["norm_bias"].zero_()
    o = own(bottleneck)(**given, norm_eps=1e-12)
    o.backward(torch.full_like(o, 0.3))
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (given["h"], given["down"]))
    compare(given, norm_eps=1e-12)


# Dropout


def test_one_mask_for_a_seed_and_a_shape() -> None:
    """The mask is read off a call in which it is the result, and put into the reference of another."""
    rows, units, rate = 33, 24, 0.3

    def seeded(**options: Any) -> Tensor:
        torch.manual_seed(5)
        o = bottleneck(**options, dropout=rate, training=True)
        torch.randn(5)  # moves the generator on: the backward pass draws from the forward's seed
        return o

    h, one = torch.rand(rows, units) + 0.5, torch.eye(units)
    mask = (seeded(h=h, down=one, up=one, activation="relu") / h).detach()
    kept = mask != 0
    torch.testing.assert_close(mask[kept], torch.full((int(kept.sum()),), 1 / kept_fraction(rate)))
    assert abs(kept.float().mean() - 0.7) < 5 * (0.21 / kept.numel()) ** 0.5
    assert kept.float().mean(0).std() < 0.2 and kept.float().mean(1).std() < 0.2

    def exact(h: Tensor, down: Tensor, up: Tensor, **rest: Any) -> Tensor:
        z = F.layer_norm(h, h.shape[-1:], rest["norm_weight"], rest["norm_bias"], 1e-6)
        v = F.gelu(F.linear(z, down, rest["down_bias"])) * mask.double()
        return rest["residual"] + rest["scale"] * F.linear(v, up, rest["up_bias"])

    given = tensors((rows,), 40, units, torch.float32)
    found = errors(lambda **t: seeded(**t, norm_eps=1e-6), exact, given)
    assert max(found.values()) < 2e-5, found


def test_dropout_reproduces_and_only_trains() -> None:
    given = tensors((10,), 32, 8, torch.float32)

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return bottleneck(**given, norm_eps=1e-6, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))


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
    compare(given)
