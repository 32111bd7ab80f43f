from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels import SnellPart, activation_source, snell_linear, snell_update, use
from peftx_kernels.ops.snell_linear import tiles

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SHAPES = [  # rows, in, out, groups, coordinates
    ((1,), 5, 3, 1, 1),
    ((1, 7), 33, 17, 2, 2),
    ((63,), 31, 65, 2, 4),
    ((2, 5, 3), 24, 9, 3, 5),
    ((57,), 130, 270, 2, 16),  # more than one block
]


def error(got: Tensor, want: Tensor) -> float:
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm().clamp(min=1e-30))


def a_part(start: int, stop: int, width: int, shape: tuple[int, int] = (2, 3), **fields: Any) -> SnellPart:
    groups, coordinates = shape
    a, b = (torch.randn(groups, n, coordinates) * 0.4 for n in (width, stop - start))
    mix = fields.pop("mix", False)
    values = tuple(torch.tensor([v]) for v in (1.3, 0.7, 0.2)) if mix else None
    part = SnellPart(start, stop, a, b, **{"sparsity": 0.6, "scale": 0.7, "mix": values, **fields})
    return moved(part, torch.float32)


def moved(part: SnellPart, dtype: torch.dtype) -> SnellPart:
    def leaf(t: Tensor) -> Tensor:
        return t.detach().to(dtype).requires_grad_()

    mix = None if part.mix is None else tuple(leaf(t) for t in part.mix)
    return part._replace(a=leaf(part.a), b=leaf(part.b), mix=mix)


def factors(*parts: SnellPart) -> list[Tensor]:
    return [t for part in parts for t in (part.a, part.b, *(part.mix or ()))]


def layer(rows: tuple[int, ...], width: int, out: int, dtype: torch.dtype) -> list[Tensor]:
    shapes = ((*rows, width), (out, width), (out,))
    return [(torch.randn(shape) * 0.5).to(dtype).requires_grad_() for shape in shapes]


def compare(inputs: list[Tensor], parts: list[SnellPart], tolerance: float, **options: Any) -> None:
    """Hold the value and every gradient against the reference in float64."""
    results = []
    for tier in ("eager", "reference"):
        use(tier)
        torch.manual_seed(1)
        if tier == "reference":
            inputs = [t.detach().double().requires_grad_() for t in inputs]
            parts = [moved(p, torch.float64) for p in parts]
        y = snell_linear(inputs[0], inputs[1], inputs[2], parts, **options)
        taken = [*inputs, *factors(*parts)]
        cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        results.append([y, *torch.autograd.grad(y, taken, cotangent)])
    for index, (one, two) in enumerate(zip(*results, strict=True)):
        assert one.shape == two.shape
        if two.numel() == 1:  # alpha, gamma, beta: sums over the map that nearly cancel
            assert float((one.detach() - two.detach()).abs()) < tolerance * 1e2, index
        else:
            assert error(one, two) < tolerance, index


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("mix", [False, True], ids=["snell", "snella"])
@pytest.mark.parametrize("mode", ["official", "paper", "soft", "dense"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_every_gradient(shape: Any, mode: str, mix: bool, dtype: torch.dtype) -> None:
    rows, width, out, *kernel = shape
    part = moved(a_part(0, out, width, tuple(kernel), mode=mode, mix=mix), dtype)
    compare(layer(rows, width, out, dtype), [part], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    inputs = layer((57,), 130, 70, dtype)
    parts = [a_part(0, 40, 130, mix=True), a_part(40, 70, 130)]
    inputs[0], inputs[1] = (t.detach().mul(0.2).requires_grad_() for t in inputs[:2])
    y = snell_linear(*inputs, parts)
    assert y.dtype == dtype
    cotangent = torch.randn(y.shape).to(dtype)
    got = [y, *torch.autograd.grad(y, [*inputs, *factors(*parts)], cotangent)]
    use("reference")
    wide = [t.detach().double().requires_grad_() for t in inputs]
    others = [moved(p, torch.float64) for p in parts]
    y = snell_linear(*wide, others)
    want = [y, *torch.autograd.grad(y, [*wide, *factors(*others)], cotangent.double())]
    for one, two in zip(got, want, strict=True):
        assert error(one, two) < TOLERANCE[dtype] * (10 if two.numel() == 1 else 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_an_update_below_the_weights_last_place_still_acts(dtype: torch.dtype) -> None:
    """|S| near 1e-6 beside |W| near 1: their sum in half precision would be W, and 1e-6 is subnormal in float16."""
    x, weight, _ = layer((4,), 64, 48, dtype)
    part = a_part(0, 48, 64, scale=2e-3)
    s = snell_update(part).detach()
    assert s.abs().max() < 2e-5
    y = snell_linear(x, torch.zeros_like(weight), None, [part])
    assert error(y, x.double() @ s.double().t()) < 1e-2
    (d_x,) = torch.autograd.grad(y, x, torch.ones_like(y) * 1e3)
    assert error(d_x, 1e3 * s.double().sum(0).expand(4, 64)) < 1e-2


@pytest.mark.parametrize(
    "options", [{"dropout": 0.3}, {"drop_path": 0.4}, {"dropout": 0.2, "drop_path": 0.2}], ids=str
)
def test_dropped_inputs(options: dict[str, float]) -> None:
    inputs = layer((6, 5), 20, 18, torch.float64)
    parts = [moved(a_part(0, 6, 20, mix=True), torch.float64), moved(a_part(9, 18, 20), torch.float64)]
    compare(inputs, parts, 1e-12, training=True, **options)
    plain = snell_linear(*inputs, parts)
    assert torch.equal(snell_linear(*inputs, parts, **options), plain)
    assert not torch.equal(snell_linear(*inputs, parts, training=True, **options), plain)


def test_drop_path_drops_whole_samples() -> None:
    x, weight, bias = layer((40, 3), 8, 6, torch.float64)
    part = moved(a_part(0, 6, 8), torch.float64)
    base = F.linear(x, weight, bias)
    full = snell_linear(x, weight, bias, [part]) - base
    kept = snell_linear(x, weight, bias, [part], drop_path=0.5, training=True) - base
    ratio = (kept * full).sum((1, 2)) / full.square().sum((1, 2))
    assert set(ratio.detach().round(decimals=6).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "ranges", [((0, 6), (6, 12), (12, 18)), ((2, 6), (12, 18)), ((0, 12), (6, 18))], ids=str
)
def test_slices(ranges: Any, dtype: torch.dtype) -> None:
    parts = [a_part(*rows, 12, mix=bool(i % 2), sparsity=0.2 * i + 0.3) for i, rows in enumerate(ranges)]
    if dtype is torch.float64:
        parts = [moved(p, dtype) for p in parts]
    if dtype is torch.bfloat16:
        x, weight, bias = layer((3, 5), 12, 18, dtype)
        y = snell_linear(x, weight, bias, parts)
        want = F.linear(x.double(), weight.double(), bias.double())
        for p in parts:
            want[..., p.start : p.stop] += x.double() @ snell_update(p).double().t()
        assert error(y, want) < 1e-2
        return
    compare(layer((3, 5), 12, 18, dtype), parts, TOLERANCE[dtype])


def test_rows_without_a_part_are_the_base() -> None:
    x, weight, bias = layer((3, 5), 12, 18, torch.float32)
    base = F.linear(x, weight, bias)
    y = snell_linear(x, weight, bias, [a_part(6, 12, 12)])
    torch.testing.assert_close(y[..., :6], base[..., :6], rtol=0, atol=1e-6)
    torch.testing.assert_close(y[..., 12:], base[..., 12:], rtol=0, atol=1e-6)
    assert torch.equal(snell_linear(x, weight, bias, []), base)


@pytest.mark.parametrize("mix", [False, True])
def test_every_choice_of_trained_inputs(mix: bool) -> None:
    for trained in range(1, 32):
        part = moved(a_part(0, 5, 6, mix=mix), torch.float64)
        inputs = layer((4, 3), 6, 5, torch.float64)
        everything = [*inputs, *factors(part)][: 8 if mix else 5]
        for bit, t in enumerate(everything):
            t.requires_grad_(bool(trained >> (bit % 5) & 1))
        chosen = [t for t in everything if t.requires_grad]
        results = []
        for tier in ("eager", "reference"):
            use(tier)
            x = F.gelu(inputs[0])
            source = activation_source(x) if tier == "eager" else None
            y = snell_linear(x, inputs[1], inputs[2], [part], source=source)
            results.append([y, *torch.autograd.grad(y.sin().sum(), chosen)])
        for one, two in zip(*results, strict=True):
            assert error(one, two) < 1e-10, trained


def test_merged_weight_gives_the_same() -> None:
    for mix in (False, True):
        x, weight, bias = layer((9,), 130, 270, torch.float32)
        part = a_part(0, 270, 130, mix=mix)
        merged = F.linear(x, weight + snell_update(part), bias)
        torch.testing.assert_close(snell_linear(x, weight, bias, [part]), merged, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mix", [False, True], ids=["snell", "snella"])
@pytest.mark.parametrize("mode", ["official", "paper", "soft", "dense"])
def test_update_and_its_gradients(mode: str, mix: bool) -> None:
    results = []
    for tier in ("eager", "reference"):
        use(tier)
        torch.manual_seed(3)
        part = moved(a_part(4, 21, 11, mode=mode, mix=mix), torch.float64)
        s = snell_update(part)
        assert s.shape == (17, 11)
        results.append([s, *torch.autograd.grad(s.sin().sum(), factors(part))])
    for one, two in zip(*results, strict=True):
        assert error(one, two) < 1e-12


def test_threshold_of_the_forward_serves_the_backward() -> None:
    """What is thinned in the backward was thinned in the forward, even when a factor was moved in between."""
    part, searched = a_part(0, 17, 33), []
    original = tiles.magnitude_quantile

    def counted(*args: Any, **options: Any) -> Tensor:
        searched.append(1)
        return original(*args, **options)

    tiles.magnitude_quantile = counted  # type: ignore[assignment]
    try:
        y = snell_linear(*layer((5,), 33, 17, torch.float32), [part])
        assert len(searched) == 1
        y.sum().backward()
        assert len(searched) == 1
    finally:
        tiles.magnitude_quantile = original


def test_close_and_equal_rows_with_many_coordinates() -> None:
    """The float64 product takes identical rows for identical, and is as good as differences on close ones."""
    torch.manual_seed(0)
    a = torch.randn(2, 40, 16) * 0.03
    b = a.flip(1) * (1 + 1e-4 * torch.randn(2, 40, 1))
    b[:, :20] = a[:, :20]
    part = moved(SnellPart(0, 40, a, b, 0.3, scale=10.0), torch.float32)
    s = snell_update(part)
    d_a, d_b = torch.autograd.grad(s.sum(), (part.a, part.b))
    use("reference")
    exact = moved(part, torch.float64)
    want = snell_update(exact)
    assert error(s, want) < 1e-5
    for got, one in zip((d_a, d_b), torch.autograd.grad(want.sum(), (exact.a, exact.b)), strict=True):
        assert got.isfinite().all() and error(got, one) < 1e-3
    kernel = tiles.Kernel(part, torch.float32)
    block = next(kernel.blocks())
    out, spare = (block.room(t) for t in kernel.buffers(2))
    assert kernel.distance(0, block, out, spare).diagonal()[:20].count_nonzero() == 0


@pytest.mark.parametrize("rows", [(0,), (2, 0, 3), ()], ids=str)
def test_empty_and_vector_inputs(rows: tuple[int, ...]) -> None:
    for options in ({}, {"dropout": 0.5, "drop_path": 0.5, "training": True}):
        inputs = layer(rows, 6, 5, torch.float64)
        part = moved(a_part(0, 5, 6, mix=True), torch.float64)
        y = snell_linear(*inputs, [part], **options)
        assert y.shape == (*rows, 5)
        for g, t in zip(
            torch.autograd.grad(y.sum(), [*inputs, *factors(part)]), [*inputs, *factors(part)], strict=True
        ):
            assert g.shape == t.shape and g.isfinite().all()


def test_strided_weights_and_inputs() -> None:
    x = torch.randn(10, 4, 12, dtype=torch.float64).permute(2, 1, 0)[::2].requires_grad_()
    weight = torch.randn(10, 8, dtype=torch.float64).t().requires_grad_()
    compare(
        [x, weight, torch.randn(8, dtype=torch.float64, requires_grad=True)],
        [moved(a_part(0, 8, 10), torch.float64)],
        1e-12,
    )


def test_wrong_parts_and_rates_are_refused() -> None:
    x, weight, bias = layer((4,), 6, 5, torch.float32)
    part = a_part(0, 5, 6)
    with pytest.raises(
        ValueError, match=r"cannot take a \(2, 5, 3\) and b \(2, 6, 3\); expected a \(H, 6, d\)"
    ):
        snell_linear(x, weight, bias, [part._replace(a=part.b, b=part.a)])
    with pytest.raises(ValueError, match="rows 3:9"):
        snell_linear(x, weight, bias, [part._replace(start=3, stop=9)])
    with pytest.raises(ValueError, match="mode is 'hard'; expected one of official, paper, soft, dense"):
        snell_linear(x, weight, bias, [part._replace(mode="hard")])
    with pytest.raises(ValueError, match=r"sparsity is 1\.5"):
        snell_linear(x, weight, bias, [part._replace(sparsity=1.5)])
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        snell_linear(x, weight, bias, [part], dropout=1.5)


# Precision and compilers


def test_autocast_computes_and_returns_as_linear_does() -> None:
    x, weight, bias = layer((4, 9), 32, 16, torch.float32)
    part = a_part(0, 16, 32, mix=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = snell_linear(x, weight, bias, [part])
        assert y.dtype == F.linear(x, weight).dtype == torch.bfloat16
        inside = torch.autograd.grad(y.float().sum(), [x, *factors(part)], retain_graph=True)
    outside = torch.autograd.grad(y.float().sum(), [x, *factors(part)])
    want = snell_linear(x, weight, bias, [part])
    assert error(y, want) < 1e-2
    for one, two, three in zip(
        inside, outside, torch.autograd.grad(want.sum(), [x, *factors(part)]), strict=True
    ):
        assert one.dtype == torch.float32 and torch.equal(one, two)
        assert error(one, three) < 0.05


@pytest.mark.parametrize("mode", ["official", "soft", "paper"])
def test_compiles_whole(mode: str) -> None:
    x, weight, bias = layer((2, 7), 12, 18, torch.float32)
    weight.requires_grad_(False)
    parts = [a_part(0, 6, 12, mix=True, mode=mode), a_part(12, 18, 12, mode=mode)]
    inputs = [x, bias, *factors(*parts)]

    def model() -> Tensor:
        return (
            snell_linear(F.gelu(x), weight, bias, parts).sin().sum() + snell_update(parts[0]).square().sum()
        )

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(), model())
        for one, two in zip(
            torch.autograd.grad(compiled(), inputs), torch.autograd.grad(model(), inputs), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_compiled_dropout_drops() -> None:
    x, weight, bias = layer((64, 2), 32, 8, torch.float32)
    part = a_part(0, 8, 32)
    compiled = torch.compile(snell_linear, fullgraph=True, backend="aot_eager")
    base = compiled(x, weight, bias, [part])
    for options in ({"dropout": 0.5}, {"drop_path": 0.5}):
        assert not torch.equal(compiled(x, weight, bias, [part], training=True, **options), base)


def test_functional_transforms() -> None:
    x, weight, bias = (t.detach() for t in layer((4, 6), 8, 5, torch.float64))
    part = moved(a_part(0, 5, 8, mix=True), torch.float64)

    def loss(a: Tensor, x: Tensor) -> Tensor:
        return snell_linear(x, weight, bias, [part._replace(a=a)]).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(part.a, x)
    want = torch.stack([torch.autograd.grad(loss(part.a, one), part.a)[0] for one in x])
    assert error(per_sample, want) < 1e-10


def test_output_may_be_changed_in_place() -> None:
    inputs, part = layer((4,), 6, 5, torch.float64), moved(a_part(0, 5, 6), torch.float64)
    taken = [*inputs, *factors(part)]
    plain = torch.autograd.grad(F.relu(snell_linear(*inputs, [part])).sum(), taken)
    changed = torch.autograd.grad(snell_linear(*inputs, [part]).relu_().sum(), taken)
    for one, two in zip(changed, plain, strict=True):
        assert torch.equal(one, two)
