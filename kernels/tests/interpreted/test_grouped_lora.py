"""The segmented products, through Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels import Groups, KernelError, activation_source, group_rows, grouped_lora
from peftx_kernels.dropout import kept_fraction
from peftx_kernels.ops.grouped_lora import launch, reference, triton
from peftx_kernels.testing import TOLERANCES, relative_error

Part = tuple[int, int, int, Tensor, Tensor, float]

CASES: dict[str, tuple[list[int], int, tuple[int, ...], int, int, list[tuple[int, int, int, int]]]] = {
    # ids, groups, rows, in, out; of each part group, start, stop, rank
    "one row": ([0], 2, (1,), 5, 3, [(0, 0, 3, 1), (1, 0, 3, 2)]),
    "scattered": ([0, 1, -1] * 21, 2, (63,), 40, 35, [(0, 0, 35, 8), (1, 0, 35, 3)]),
    "slices": (
        [1, 0, -1, 0, 1, 2],
        3,
        (6, 43),
        24,
        18,
        [(0, 0, 6, 2), (1, 12, 18, 3), (1, 0, 6, 1), (0, 4, 14, 4)],
    ),
    "even": ([1, 0, -1], 2, (3, 20), 48, 64, [(0, 16, 48, 8), (1, 0, 64, 16), (1, 48, 64, 40)]),
    "large rank": (
        [0] * 100 + [1] * 57 + [-1] * 100,
        3,
        (257,),
        33,
        29,
        [(0, 0, 29, 384), (1, 0, 29, 1), (1, 3, 9, 0)],
    ),
    "an empty group": ([2, -1, 2], 4, (3, 5), 12, 7, [(2, 0, 7, 2), (3, 0, 7, 2), (0, 0, 7, 5)]),
}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory that nothing was written to holds NaN."""
    plain = Tensor.new_empty

    def new_empty(self: Tensor, *size: Any, **options: Any) -> Tensor:
        made = plain(self, *size, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(Tensor, "new_empty", new_empty)
    yield


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library form must not stand in for the kernels."""
    monkeypatch.setattr("peftx_kernels.ops.grouped_lora.op._GroupedLoRA", None)


def make(name: str, dtype: torch.dtype) -> tuple[list[Tensor], Groups, list[Part]]:
    ids, n, rows, width, out, layout = CASES[name]

    def leaf(*shape: int) -> Tensor:
        return (torch.randn(shape) * 0.5).to(dtype).requires_grad_()

    parts = [
        (group, start, stop, leaf(rank, width), leaf(stop - start, rank), 0.5 + group)
        for group, start, stop, rank in layout
    ]
    groups = group_rows(ids, n).spread(rows[1] if len(rows) > 1 else 1)
    return [leaf(*rows, width), leaf(out, width), leaf(out)], groups, parts


def leaves(inputs: Sequence[Tensor | None], parts: Sequence[Part]) -> list[Tensor]:
    every = (*inputs, *(t for part in parts for t in part[3:5]))
    return [t for t in every if t is not None and t.requires_grad]


def gradients(
    op: Any, inputs: Any, groups: Groups, parts: Any, cotangent: Tensor, **options: Any
) -> list[Tensor]:
    y = op(*inputs, groups, parts, **options)
    return [y, *torch.autograd.grad(y, leaves(inputs, parts), cotangent)]


def exact(inputs: Any, groups: Groups, parts: Any, cotangent: Tensor) -> list[Tensor]:
    """The reference on float64 copies."""

    def copy(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.detach().double().requires_grad_(t.requires_grad)

    high = [(*part[:3], copy(part[3]), copy(part[4]), part[5]) for part in parts]
    return gradients(reference.grouped_lora, [copy(t) for t in inputs], groups, high, cotangent.double())


def compare(got: Sequence[Tensor], want: Sequence[Tensor], dtype: torch.dtype) -> None:
    for at, (one, two) in enumerate(zip(got, want, strict=True)):
        assert one.shape == two.shape
        assert relative_error(one, two) <= TOLERANCES[dtype] * (1 if at == 0 else 2), at


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("no_library")
def test_value_and_every_gradient(name: str, dtype: torch.dtype) -> None:
    inputs, groups, parts = make(name, dtype)
    cotangent = torch.randn(*inputs[0].shape[:-1], len(inputs[2])).to(dtype)
    got = gradients(grouped_lora, inputs, groups, parts, cotangent)
    assert all(t.dtype == dtype for t in got)
    compare(got, exact(inputs, groups, parts, cotangent), dtype)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.usefixtures("no_library")
def test_split_sums(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the sums over columns and rows are split among programs."""
    monkeypatch.setattr(launch, "_SHARE", 1)
    monkeypatch.setattr(launch, "_MOST_SPLITS", most)
    inputs, groups, parts = make("even", torch.float32)
    cotangent = torch.randn(3, 20, 64)
    want = exact(inputs, groups, parts, cotangent)
    compare(gradients(grouped_lora, inputs, groups, parts, cotangent), want, torch.float32)
    inputs[0].requires_grad_(False)  # then dV is not summed by the kernel that would add it to dX
    got = gradients(grouped_lora, inputs, groups, parts, cotangent)
    compare(got, [want[0], *want[2:]], torch.float32)


@pytest.mark.usefixtures("no_library")
def test_strided_wide_and_without_bias() -> None:
    inputs, groups, parts = make("slices", torch.bfloat16)
    x = torch.randn(24, 43, 12).bfloat16().permute(2, 1, 0)[::2].requires_grad_()
    given = [x, inputs[1], None]
    parts = [(*p[:3], *(t.detach().float().requires_grad_() for t in p[3:5]), p[5]) for p in parts]  # type: ignore[misc]
    cotangent = torch.ones(1, dtype=torch.bfloat16).expand(6, 43, 18)
    got = gradients(grouped_lora, given, groups, parts, cotangent)
    assert got[3].dtype == torch.float32
    compare(got, exact(given, groups, parts, cotangent), torch.bfloat16)


@pytest.mark.usefixtures("no_library")
def test_what_is_not_trained_is_not_computed() -> None:
    inputs, groups, parts = make("even", torch.float32)
    every = leaves(inputs, parts)
    cotangent = torch.randn(3, 20, 64)
    want = dict(zip(map(id, every), exact(inputs, groups, parts, cotangent)[1:], strict=True))
    for chosen in ([0], [3], [4], [1, 6], [2, 0], [5, 8]):
        for at, tensor in enumerate(every):
            tensor.requires_grad_(at in chosen)
        y = grouped_lora(*inputs, groups, parts)
        for tensor, one in zip(
            (every[at] for at in chosen),
            torch.autograd.grad(y, [every[at] for at in chosen], cotangent),
            strict=True,
        ):
            assert relative_error(one, want[id(tensor)]) < 2e-5


@pytest.mark.usefixtures("no_library")
def test_rows_and_columns_without_a_part_are_exactly_the_base() -> None:
    inputs, groups, parts = make("even", torch.bfloat16)
    y, base = (f.flatten(0, 1) for f in (grouped_lora(*inputs, groups, parts), F.linear(*inputs)))
    assert torch.equal(y[groups.ids == -1], base[groups.ids == -1])
    other = (groups.ids == 0).nonzero().flatten()
    assert torch.equal(y[other][:, :16], base[other][:, :16]) and torch.equal(
        y[other][:, 48:], base[other][:, 48:]
    )
    assert not torch.equal(y[other][:, 16:48], base[other][:, 16:48])


@pytest.mark.usefixtures("no_library")
def test_the_same_every_time() -> None:
    inputs, groups, parts = make("slices", torch.bfloat16)
    cotangent = torch.randn(6, 43, 18).bfloat16()
    first = gradients(grouped_lora, inputs, groups, parts, cotangent)
    for one, two in zip(first, gradients(grouped_lora, inputs, groups, parts, cotangent), strict=True):
        assert torch.equal(one, two)


# Dropout


@pytest.mark.usefixtures("no_library")
def test_dropout() -> None:
    """W = 0, A = B = 1 in one row: y is the sum of what is kept, over the kept fraction."""
    x = torch.rand(64, 32, requires_grad=True)
    a, b = torch.eye(32).requires_grad_(), torch.eye(32).requires_grad_()
    groups = group_rows([0, 1] * 32, 2)
    parts = [(0, 0, 32, a, b, 2.0), (1, 0, 32, a, b, 1.0)]

    def run(seed: int, rate: float = 0.25) -> Tensor:
        torch.manual_seed(seed)
        return grouped_lora(x, torch.zeros(32, 32), None, groups, parts, dropout=rate, training=True)

    y = run(1)
    torch.testing.assert_close(run(1), y, rtol=0, atol=0)
    assert not torch.equal(run(2), y) and torch.equal(run(2, 0.0), run(1, 0.0))
    kept = y != 0
    scales = torch.tensor([2.0, 1.0]).repeat(32)[:, None] / kept_fraction(0.25)
    torch.testing.assert_close(y, torch.where(kept, x * scales, 0.0))
    share = kept.float().mean().item()
    assert abs(share - 0.75) < 4 * (0.25 * 0.75 / 2048) ** 0.5
    assert (kept.float().mean(0) - 0.75).abs().max() < 0.3 and (
        kept.float().mean(1) - 0.75
    ).abs().max() < 0.35
    torch.randn(3)  # the backward draws from the forward's seed, not from the generator
    d_x, d_a, d_b = torch.autograd.grad(y.sum(), (x, a, b))
    torch.testing.assert_close(d_x, torch.where(kept, scales, 0.0))
    torch.testing.assert_close(d_a, y.sum(0).expand(32, 32))
    torch.testing.assert_close(d_b, y.sum(0).expand(32, 32))


@pytest.mark.usefixtures("no_library")
def test_recomputed_input() -> None:
    inputs, groups, parts = make("slices", torch.float32)
    results = []
    for recompute in (False, True):
        torch.manual_seed(4)
        x = F.gelu(inputs[0])
        source = activation_source(x) if recompute else None
        y = grouped_lora(x, *inputs[1:], groups, parts, dropout=0.3, training=True, source=source)
        results.append([y, *torch.autograd.grad(y.sin().sum(), leaves(inputs, parts))])
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


# What else the op must do


@pytest.mark.usefixtures("no_library")
def test_ids_may_change_under_the_same_launches() -> None:
    """What a graph captured: same tensors, other contents."""
    inputs, _, parts = make("scattered", torch.float32)
    ids = torch.tensor(CASES["scattered"][0])
    first = group_rows(ids, 2).chunks(ids.device, launch.FULL.rows)
    for other in ([0] * 63, [1] * 62 + [0], [-1] * 63):
        second = group_rows(other, 2)
        chunks = second.chunks(ids.device, launch.FULL.rows)
        assert [t.shape for t in (chunks.order, chunks.group)] == [
            t.shape for t in (first.order, first.group)
        ]
        y = grouped_lora(*inputs, second, parts)
        assert relative_error(y, reference.grouped_lora(*inputs, second, parts)) < 1e-5


@pytest.mark.usefixtures("no_library")
def test_autocast() -> None:
    inputs, groups, parts = make("even", torch.float32)
    cotangent = torch.randn(3, 20, 64)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(grouped_lora, inputs, groups, parts, cotangent.bfloat16())
    assert got[0].dtype == torch.bfloat16 and got[1].dtype == torch.float32
    for one, two in zip(got, exact(inputs, groups, parts, cotangent), strict=True):
        assert relative_error(one, two) < 4 * TOLERANCES[torch.bfloat16]


def test_what_the_kernels_cannot_do() -> None:
    inputs, groups, parts = make("slices", torch.float64)
    cotangent = torch.randn(6, 43, 18, dtype=torch.float64)
    compare(
        gradients(grouped_lora, inputs, groups, parts, cotangent),
        exact(inputs, groups, parts, cotangent),
        torch.float64,
    )
    assert grouped_lora(
        torch.zeros(0, 24), *make("slices", torch.float32)[0][1:], group_rows([], 3), []
    ).shape == (0, 18)
    with pytest.raises(KernelError, match=r"not torch\.int32; use grouped_lora=eager"):
        grouped_lora(*(t.detach().int() for t in inputs), groups, parts)
    with pytest.raises(ValueError, match="groups of every row"):
        grouped_lora(*inputs, group_rows([0], 3), parts)


def test_fits_is_for_gpus() -> None:
    inputs, groups, parts = make("slices", torch.bfloat16)
    assert not triton.fits("grouped_lora", *inputs, groups, parts)


@pytest.mark.usefixtures("no_library")
def test_one_graph_twice_in_it() -> None:
    inputs, groups, parts = make("even", torch.float32)
    every = leaves(inputs, parts)

    def model(x: Tensor) -> Tensor:
        h = grouped_lora(x, *inputs[1:], groups, parts, dropout=0.3, training=True)
        return grouped_lora(h[..., :48], *inputs[1:], groups, parts)

    results = []
    for run in (torch.compile(model, fullgraph=True, backend="aot_eager"), model):
        torch.manual_seed(3)
        y = run(inputs[0])
        results.append([y, *torch.autograd.grad(y.sin().sum(), every)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_torch_accepts_it() -> None:
    inputs, groups, parts = make("even", torch.float32)
    x, weight, bias = (t.detach() for t in inputs)
    layout = tuple((p[0], p[1], p[2], p[3].shape[0], p[5]) for p in parts)
    tile = launch.FULL
    chunks = groups.chunks(x.device, tile.rows)
    order = [chunks.order, chunks.starts, chunks.group, chunks.first, chunks.count]
    tables = [launch.tables(layout, 2, 48, tile.ranks, down, x.device) for down in (True, False)]
    sizes = launch.sizes_of(layout, 48, tile.ranks, 0)
    a, b = (torch.cat([p[i].detach().reshape(-1) for p in parts]) for i in (3, 4))
    rest = (
        torch.empty(0, dtype=torch.int64),
        order,
        *tables,
        list(astuple(tile)),
        list(astuple(sizes)),
    )
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton._forward.registered, (x, weight, bias, a, b, *rest), test_utils=tests)
    _, v = triton._forward(x, weight, bias, a, b, *rest)
    for needs in ([True] * 3, [False, True, False]):
        args = (torch.randn(60, 64), x.view(60, 48), weight, a, b, v, *rest, needs)
        torch.library.opcheck(triton._backward.registered, args, test_utils=tests)
