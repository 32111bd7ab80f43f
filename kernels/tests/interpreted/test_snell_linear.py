"""Values, gradients and thresholds of the kernels against the reference in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases.snell import a_part, factors, layer
from torch import Tensor

from peftx_kernels import SnellPart, activation_source, snell_linear, snell_update
from peftx_kernels.ops.snell_linear import launch, reference, sizes
from peftx_kernels.ops.snell_linear.launch import form, form_again, numbers
from peftx_kernels.ops.snell_linear.quantile import magnitude_quantile
from peftx_kernels.ops.snell_linear.sizes import Tile
from peftx_kernels.testing import TOLERANCES, errors, relative_error

MODES = ("official", "paper", "soft", "dense")
SHAPES = [  # rows, in, out, groups, coordinates
    ((1,), 5, 3, 1, 1),
    ((63,), 31, 65, 2, 4),
    ((2, 5, 3), 24, 9, 3, 5),
    ((257,), 63, 130, 2, 2),
]


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes milliseconds for an iteration, whatever its tile."""
    for name in ("FORM", "SUMS", "CONTRACT"):
        monkeypatch.setattr(sizes, name, Tile(256, 128, 1))
    monkeypatch.setattr(sizes, "JOIN", 2048)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch, large_tiles: None) -> None:
    """Several tiles and blocks in both directions, few programs, so that each walks over some."""
    for name in ("FORM", "SUMS", "CONTRACT"):
        monkeypatch.setattr(sizes, name, Tile(16, 16, 1))
    monkeypatch.setattr(sizes, "_WARPS", 3)
    monkeypatch.setattr(sizes, "JOIN", 32)


def compare(inputs: list[Tensor | None], parts: list[SnellPart], **options: Any) -> None:
    """Hold the value and every gradient against the reference in float64."""
    named = dict(zip(("x", "weight", "bias"), inputs, strict=True))
    for index, t in enumerate(factors(*parts)):
        named[f"factor{index}"] = t

    def run(which: Any) -> Any:
        def call(x: Tensor, weight: Tensor, bias: Tensor | None, **given: Tensor) -> Tensor:
            torch.manual_seed(1)
            left, made = list(given.values()), []
            for part in parts:
                mix = None if part.mix is None else (left[2], left[3], left[4])
                made.append(part._replace(a=left[0], b=left[1], mix=mix))
                left = left[2 if part.mix is None else 5 :]
            return which(x, weight, bias, made, **options)

        return call

    assert inputs[0] is not None
    tolerance = TOLERANCES[inputs[0].dtype]
    found = errors(run(snell_linear), run(reference.snell_linear), named)
    for name, error in found.items():
        part_of = name.startswith("factor") and named[name].numel() == 1  # type: ignore[union-attr]
        # alpha, gamma, beta: sums over the map that nearly cancel
        assert error <= tolerance * (20 if part_of else 1 if name == "y" else 2), (name, found)


# Values and gradients


@pytest.mark.parametrize("mix", [False, True], ids=["snell", "snella"])
@pytest.mark.parametrize(("shape", "mode"), list(zip(SHAPES, MODES, strict=True)), ids=str)
def test_value_and_every_gradient(shape: Any, mode: str, mix: bool) -> None:
    rows, width, out, *kernel = shape
    compare(layer(rows, width, out), [a_part(0, out, width, tuple(kernel), mode=mode, mix=mix)])


@pytest.mark.parametrize("mode", ["official", "soft"])
def test_many_tiles(mode: str, small_tiles: None) -> None:
    down, across, each_down, each_across = sizes.blocks(47, 35, 2, 1)
    assert down * across <= 3 and each_down > 1 and each_across > 1 and sizes.programs(47, 35) == 3
    compare(layer((7,), 35, 47), [a_part(0, 47, 35, (2, 1), mode=mode, mix=mode == "soft")])


def test_sums_over_splits_of_the_rows(monkeypatch: pytest.MonkeyPatch, small_tiles: None) -> None:
    monkeypatch.setattr(sizes, "_WARPS", 1000)
    assert sizes.column_splits(33, 20) == (2, 3, 16)
    compare(layer((7,), 20, 33), [a_part(0, 33, 20, (2, 1), mix=True)])


def test_many_coordinates() -> None:
    compare(layer((4,), 6, 5), [a_part(0, 5, 6, (2, 192))])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", [1, 257])
def test_half_precision(rows: int, dtype: torch.dtype) -> None:
    parts = [a_part(0, 40, 33, mix=True), a_part(40, 70, 33, mode="soft")]
    compare([*layer((rows,), 33, 70, dtype)], parts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_an_update_below_the_weights_last_place_still_acts(dtype: torch.dtype) -> None:
    """|S| near 1e-6 beside |W| near 1: their sum in half precision would be W, and 1e-6 is subnormal in float16."""
    x, weight, _ = layer((4,), 64, 48, dtype)
    x = (x.detach() * 8).requires_grad_()
    part = a_part(0, 48, 64, scale=2e-3)
    s = snell_update(part).detach()
    assert s.abs().max() < 2e-5
    y = snell_linear(x, torch.zeros_like(weight), None, [part])
    assert relative_error(y, x.double() @ s.double().t()) < 1e-2
    (d_x,) = torch.autograd.grad(y, x, torch.ones_like(y) * 1e3)
    assert relative_error(d_x, 1e3 * s.double().sum(0).expand(4, 64)) < 1e-2


@pytest.mark.parametrize("mode", MODES)
def test_the_power_of_two_brings_the_largest_to_between_a_half_and_one(mode: str) -> None:
    for scale in (3e-5, 40.0):
        part = a_part(0, 9, 7, (2, 1), mode=mode, scale=scale)
        tensors, (ints, floats) = [part.a, part.b], numbers([part])
        s, notes = form(None, tensors, ints, floats, torch.float16)
        wide, plain = form(None, tensors, ints, floats, torch.float32)
        power = float(notes[1])
        assert math.frexp(power)[0] == 0.5 and plain[1] == 1
        assert 0.5 <= s.abs().max() < 1 and torch.equal((wide / power).half(), s)
        assert torch.equal(form_again(None, tensors, notes, ints, floats, torch.float16), s)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dropped_inputs(dtype: torch.dtype) -> None:
    parts = [a_part(0, 6, 20, (1, 2), mix=True), a_part(9, 18, 20, (1, 2))]
    options: dict[str, Any] = {"dropout": 0.2, "drop_path": 0.2, "training": True}
    inputs = layer((6, 5), 20, 18, dtype)
    compare([*inputs], parts, **options)
    plain = snell_linear(*inputs, parts)
    assert not torch.equal(snell_linear(*inputs, parts, **options), plain)
    assert torch.equal(snell_linear(*inputs, parts, **{**options, "training": False}), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ranges", [((2, 6), (12, 18)), ((0, 12), (6, 18))], ids=str)
def test_slices(ranges: Any, dtype: torch.dtype) -> None:
    parts = [a_part(*rows, 12, (1, 2), mix=i == 0, sparsity=0.2 * i + 0.3) for i, rows in enumerate(ranges)]
    inputs = layer((3, 5), 12, 18, dtype)
    compare([*inputs], parts)
    if ranges[0][0]:
        base = F.linear(*inputs)
        torch.testing.assert_close(snell_linear(*inputs, parts)[..., 6:12], base[..., 6:12])


@pytest.mark.parametrize("trained", [0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b10101])
def test_choices_of_trained_inputs(trained: int) -> None:
    part = a_part(0, 5, 6, (1, 2), mix=True)
    inputs = layer((4, 3), 6, 5)
    for bit, t in enumerate([*inputs, *factors(part)]):
        t.requires_grad_(bool(trained >> (bit % 5) & 1))
    compare([*inputs], [part])


def test_strided_and_without_bias() -> None:
    x = torch.randn(10, 4, 12).permute(2, 1, 0)[::2].requires_grad_()
    weight = torch.randn(10, 8).t().requires_grad_()
    part = a_part(0, 8, 10)
    a, b = torch.randn(3, 10, 2).permute(2, 1, 0), torch.randn(2, 16, 3)[:, ::2]
    compare([x, weight, None], [part._replace(a=a.requires_grad_(), b=b.requires_grad_())])


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
def test_empty_and_vector_inputs(rows: tuple[int, ...]) -> None:
    for options in ({}, {"dropout": 0.5, "drop_path": 0.5, "training": True}):
        inputs, part = layer(rows, 6, 5), a_part(0, 5, 6, (1, 1), mix=True)
        y = snell_linear(*inputs, [part], **options)  # type: ignore[arg-type]
        assert y.shape == (*rows, 5)
        taken = [*inputs, *factors(part)]
        for g, t in zip(torch.autograd.grad(y.sum(), taken), taken, strict=True):
            assert g.shape == t.shape and g.isfinite().all()


def test_factors_of_other_types() -> None:
    part = a_part(0, 9, 7, mix=True)
    half = part._replace(
        a=part.a.detach().bfloat16().requires_grad_(),
        b=part.b.detach().double().requires_grad_(),
        mix=tuple(t.detach().bfloat16().requires_grad_() for t in part.mix or ()),
    )
    x, weight, bias = layer((4,), 7, 9)
    y = snell_linear(x, weight, bias, [half])
    gradients = torch.autograd.grad(y.sum(), factors(half))
    assert [g.dtype for g in gradients] == [t.dtype for t in factors(half)]
    exact = half._replace(a=half.a.float(), b=half.b.float(), mix=tuple(t.float() for t in half.mix or ()))
    assert torch.equal(y, snell_linear(x, weight, bias, [exact]))


def test_source_recomputes_the_input() -> None:
    inputs, part = layer((5,), 7, 9), a_part(0, 9, 7, (1, 2))
    results = []
    for keep in (True, False):
        x = F.gelu(inputs[0])
        source = None if keep else activation_source(x)
        y = snell_linear(x, inputs[1], inputs[2], [part], source=source)
        results.append(torch.autograd.grad(y.sin().sum(), [*inputs, *factors(part)]))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_update_and_its_gradients(mode: str, small_tiles: None) -> None:
    part = a_part(4, 21, 19, (2, 2), mode=mode, mix=mode == "official")
    s = snell_update(part)
    cotangent = torch.randn(19, 17).t()  # strided
    got = [s, *torch.autograd.grad(s, factors(part), cotangent)]
    exact = part._replace(
        a=part.a.double(), b=part.b.double(), mix=part.mix and tuple(t.double() for t in part.mix)
    )
    want = reference.snell_update(exact)
    for one, two in zip(
        got, [want, *torch.autograd.grad(want, factors(part), cotangent.double())], strict=True
    ):
        assert relative_error(one, two) < 2e-5
    assert s.dtype is torch.float32 and s.shape == (17, 19)


def test_equal_rows_have_distance_and_gradient_zero() -> None:
    a = torch.randn(2, 6, 3)
    b = torch.cat((a[:, :4], torch.randn(2, 3, 3)), 1).requires_grad_()
    part = SnellPart(0, 7, a.requires_grad_(), b, 0.0, "dense", scale=1.0)
    s = snell_update(part)
    assert s[:4, :4].diagonal().count_nonzero() == 0
    got = torch.autograd.grad(s.diagonal()[:4].sum(), (part.a, part.b))
    assert all(g.count_nonzero() == 0 for g in got)
    one = SnellPart(
        0, 1, a[:, :1], a[:, :1].clone(), mode="dense", mix=tuple(torch.ones(1) for _ in range(3))
    )
    assert torch.autograd.grad(snell_update(one).sum(), part.a)[0].count_nonzero() == 0


# The threshold


def searched(part: SnellPart, mode: str | None = "dense") -> tuple[Tensor, Tensor]:
    """(t, and unless the mode is None the dense map it was searched in), both by the kernels."""
    where = launch.place(part)
    tensors = [*factors(part), *(() if where is None else (where,))]
    _, notes = form(None, tensors, *numbers([part]), torch.float32)
    return notes[0], notes if mode is None else snell_update(part._replace(mode=mode, sparsity=0.0)).detach()


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.9, 0.995, 1.0])
def test_the_exact_quantile(sparsity: float) -> None:
    """To the bit, of the map as the kernels form it; the sparsity a number, or on the device."""
    for mode in ("official", "paper"):
        part = a_part(0, 20, 33, (2, 1), sparsity=sparsity, mode=mode, mix=sparsity == 0.37)
        t, v = searched(part)
        want = magnitude_quantile(v, sparsity, smallest=mode == "paper")
        assert torch.equal(t, want)
    t, _ = searched(part._replace(sparsity=torch.tensor(sparsity, dtype=torch.float64)))
    assert torch.equal(t, want)


def test_a_quantile_of_many_tiles(small_tiles: None) -> None:
    t, v = searched(a_part(0, 35, 40, (2, 1), sparsity=0.8, mix=True))
    assert torch.equal(t, torch.quantile(v.abs(), 0.8))


def line_map(values: Tensor, **fields: Any) -> SnellPart:
    """A part whose map (n, 1) holds these magnitudes."""
    return SnellPart(0, len(values), torch.zeros(1, 1, 1), values.view(1, -1, 1), scale=1.0, **fields)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_ties_constants_and_extremes() -> None:
    spread = torch.randn(300)
    for values in (
        (spread * 4).round() / 4,
        torch.full((300,), 0.25),
        torch.zeros(300),
        spread * 1e-15,
        spread.square() * 1e15,
        torch.cat((torch.full((299,), 1.0), torch.tensor([2.0]))),
        torch.cat((torch.full((250,), 1.0), torch.full((50,), torch.inf))),
        torch.tensor([3.0]),
    ):
        v = snell_update(line_map(values, mode="dense"))
        for sparsity in (0.3, 0.99):
            t, _ = searched(line_map(values, sparsity=sparsity), None)
            want = torch.quantile(v.abs().flatten(), sparsity)
            torch.testing.assert_close(t, want, rtol=0, atol=0, equal_nan=True)
    part = line_map(torch.tensor([1.0, math.nan, 2.0]), sparsity=0.5)
    assert searched(part, None)[0].isnan() and snell_update(part)[1].isnan()


def test_sparsity_zero_of_the_paper_keeps_all() -> None:
    t, v = searched(line_map(torch.arange(5.0), sparsity=0.0, mode="paper"))
    assert t == 0
    s = snell_update(line_map(torch.arange(5.0), sparsity=0.0, mode="paper"))
    assert torch.equal(s, v.square())


def test_kept_counts() -> None:
    for sparsity in (0.25, 0.9):
        part = a_part(0, 60, 41, (2, 2), sparsity=sparsity)
        kept = int((snell_update(part) != 0).sum())
        assert kept == 60 * 41 - 1 - math.floor(sparsity * (60 * 41 - 1))


def test_what_the_forward_found_serves_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[str] = []

    class Counted:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(launch, f"{name}_kernel")

        def __getitem__(self, grid: Any) -> Any:
            launches.append(self.name)
            return self.kernel[grid]

    for name in (
        "begin",
        "count",
        "form",
        "contract",
        "finish",
        "stats",
        "join_stats",
        "moments",
        "join_moments",
    ):
        monkeypatch.setattr(launch, f"{name}_kernel", Counted(name))
    for mix, first, second in (
        (False, [], []),
        (True, ["stats", "join_stats"], ["moments", "join_moments"]),
    ):
        part, launches[:] = a_part(0, 17, 33, (1, 1), mix=mix), []
        y = snell_linear(*layer((5,), 33, 17), [part])
        assert launches == [*first, "begin", "count", "count", "count", "form"]
        launches[:] = []
        y.sum().backward()
        assert launches == ["form", *second, "contract", "finish"]


def test_two_calls_give_the_same_bits(small_tiles: None) -> None:
    inputs, part = layer((9,), 17, 30), a_part(0, 30, 17, (1, 1), mix=True)
    taken = [*inputs, *factors(part)]
    results = [torch.autograd.grad(snell_linear(*inputs, [part]).sin().sum(), taken) for _ in range(2)]
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
