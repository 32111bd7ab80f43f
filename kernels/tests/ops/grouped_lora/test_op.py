from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peftx_kernels import Groups, activation_source, group_rows, grouped_lora, lora_linear, use
from peftx_kernels.ops.grouped_lora import reference
from peftx_kernels.testing import TOLERANCES, relative_error

Part = tuple[int, int, int, Tensor, Tensor, float]
Layout = tuple[int, int, int, int]  # group, start, stop, rank

CASES: dict[str, tuple[list[int], int, tuple[int, ...], int, int, list[Layout]]] = {
    # ids, groups, rows, in, out, parts
    "one row": ([0], 1, (1,), 5, 3, [(0, 0, 3, 1)]),
    "ranks": ([0, 2, 1, 2, -1, 0, 1], 3, (7, 9), 33, 17, [(0, 0, 17, 1), (1, 0, 17, 8), (2, 0, 17, 24)]),
    "a few rows": ([0, 2, 1, 2, -1, 0, 1], 4, (7,), 33, 17, [(g, 0, 17, 1 + 5 * g) for g in range(4)]),
    "scattered": ([0, 1, -1] * 21, 2, (63,), 31, 65, [(0, 0, 65, 8), (1, 0, 65, 3)]),
    "slices": (
        [1, 0, -1, 0, 1, 2],
        3,
        (6, 41),
        24,
        18,
        [(0, 0, 6, 2), (1, 12, 18, 3), (1, 0, 6, 1), (0, 4, 14, 4)],
    ),
    "large rank": ([0] * 100 + [1] * 57 + [-1] * 100, 2, (257,), 48, 33, [(0, 0, 33, 384), (1, 0, 33, 1)]),
    "an empty group": ([2, -1, 2], 4, (3, 5), 12, 7, [(2, 0, 7, 2), (3, 0, 7, 2), (0, 0, 7, 5)]),
    "no rows": ([], 2, (0,), 6, 5, [(0, 0, 5, 2), (1, 0, 5, 3)]),
}


def make(name: str, dtype: torch.dtype) -> tuple[list[Tensor], Groups, list[Part]]:
    """x, weight, bias; the groups of x's rows; the parts."""
    ids, n, rows, width, out, layout = CASES[name]
    each = rows[1] if len(rows) > 1 else 1

    def leaf(*shape: int) -> Tensor:
        return (torch.randn(shape) * 0.5).to(dtype).requires_grad_()

    parts = [
        (group, start, stop, leaf(rank, width), leaf(stop - start, rank), 0.5 + group)
        for group, start, stop, rank in layout
    ]
    return [leaf(*rows, width), leaf(out, width), leaf(out)], group_rows(ids, n).spread(each), parts


def copies(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [t.detach().to(dtype).requires_grad_(t.requires_grad) for t in tensors]


def moved(parts: Sequence[Part], dtype: torch.dtype) -> list[Part]:
    return [(*part[:3], *copies(part[3:5], dtype), part[5]) for part in parts]  # type: ignore[misc]


def leaves(inputs: Sequence[Tensor], parts: Sequence[Part]) -> list[Tensor]:
    return [t for t in (*inputs, *(t for part in parts for t in part[3:5])) if t.requires_grad]


def gradients(
    op: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    groups: Groups,
    parts: Sequence[Part],
    cotangent: Tensor,
    **options: Any,
) -> list[Tensor]:
    y = op(*inputs, groups, parts, **options)
    return [y, *torch.autograd.grad(y, leaves(inputs, parts), cotangent)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_value_and_every_gradient(name: str, dtype: torch.dtype) -> None:
    inputs, groups, parts = make(name, dtype)
    cotangent = torch.randn(*inputs[0].shape[:-1], len(inputs[2])).to(dtype)
    got = gradients(grouped_lora, inputs, groups, parts, cotangent)
    high = copies(inputs, torch.float64), groups, moved(parts, torch.float64), cotangent.double()
    want = gradients(reference.grouped_lora, *high)
    for at, (one, two) in enumerate(zip(got, want, strict=True)):
        assert one.dtype == dtype and one.shape == two.shape
        assert relative_error(one, two) <= TOLERANCES[dtype] * (1 if at == 0 else 2), at


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("name", ["slices", "scattered", "a few rows"])
def test_every_choice_of_trained_inputs(name: str, rate: float, recompute: bool) -> None:
    inputs, groups, parts = make(name, torch.float64)
    every = leaves(inputs, parts)
    for trained in range(1, 2 ** len(every), 29 if len(every) > 7 else 1):
        for bit, tensor in enumerate(every):
            tensor.requires_grad_(bool(trained >> bit & 1))
        results = []
        for tier in ("eager", "reference"):
            use(tier)
            torch.manual_seed(trained)
            x = F.gelu(inputs[0])
            source = activation_source(x) if recompute else None
            y = grouped_lora(x, *inputs[1:], groups, parts, dropout=rate, training=True, source=source)
            results.append(
                [y, *torch.autograd.grad(y.sin().sum(), leaves(inputs, parts))] if y.requires_grad else [y]
            )
        for one, two in zip(*results, strict=True):
            assert relative_error(one, two) < 1e-12, trained


def test_each_row_is_what_lora_linear_makes_of_it() -> None:
    inputs, groups, parts = make("ranks", torch.float64)
    y = grouped_lora(*inputs, groups, parts)
    for sample, group in enumerate(CASES["ranks"][0]):
        x = inputs[0][sample]
        if group < 0:
            want = F.linear(x, *inputs[1:])
        else:
            want = lora_linear(x, *inputs[1:], *parts[group][3:])
        assert relative_error(y[sample], want) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["slices", "scattered", "a few rows", "an empty group"])
def test_rows_and_columns_without_a_part_are_exactly_the_base(name: str, dtype: torch.dtype) -> None:
    inputs, groups, parts = make(name, dtype)
    for rate in (0.0, 0.5):
        y = grouped_lora(*inputs, groups, parts, dropout=rate, training=True).flatten(0, -2)
        base = F.linear(*inputs).flatten(0, -2)
        for group in range(-1, groups.n):
            covered = torch.zeros(y.shape[1], dtype=torch.bool)
            for part in parts:
                if part[0] == group:
                    covered[part[1] : part[2]] = True
            rows = groups.ids == group
            assert torch.equal(y[rows][:, ~covered], base[rows][:, ~covered])
            assert not rows.any() or not covered.any() or not torch.equal(y[rows], base[rows])
    assert torch.equal(grouped_lora(*inputs, groups, []), F.linear(*inputs))


def test_permuted_samples_give_permuted_rows() -> None:
    inputs, _, parts = make("ranks", torch.float64)
    ids = torch.tensor(CASES["ranks"][0])
    y = grouped_lora(*inputs, group_rows(ids, 3).spread(9), parts)
    order = torch.randperm(7)
    z = grouped_lora(inputs[0][order], *inputs[1:], group_rows(ids[order], 3).spread(9), parts)
    assert relative_error(z, y[order]) < 1e-14


def test_positions_first() -> None:
    inputs, groups, parts = make("ranks", torch.float64)
    want = grouped_lora(*inputs, groups, parts)
    ids = group_rows(CASES["ranks"][0], 3)
    got = grouped_lora(inputs[0].transpose(0, 1), *inputs[1:], ids.spread(1, before=9), parts)
    assert relative_error(got.transpose(0, 1), want) < 1e-14


def test_strided_inputs_and_cotangents() -> None:
    inputs, groups, parts = make("slices", torch.float64)
    inputs[0] = torch.randn(24, 41, 12, dtype=torch.float64).permute(2, 1, 0)[::2].requires_grad_()
    group, start, stop, _, b, scale = parts[0]
    strided = torch.randn(24, 2, dtype=torch.float64).t().requires_grad_()
    parts[0] = (group, start, stop, strided, b, scale)
    for cotangent in (
        torch.randn(18, 41, 6, dtype=torch.float64).permute(2, 1, 0),
        torch.ones(1, dtype=torch.float64),
    ):
        cotangent = cotangent.expand(6, 41, 18)
        want = gradients(reference.grouped_lora, inputs, groups, parts, cotangent)
        for one, two in zip(gradients(grouped_lora, inputs, groups, parts, cotangent), want, strict=True):
            assert relative_error(one, two) < 1e-12


def test_output_may_be_changed_in_place() -> None:
    inputs, groups, parts = make("ranks", torch.float64)
    every = leaves(inputs, parts)
    plain = torch.autograd.grad(F.relu(grouped_lora(*inputs, groups, parts)).sum(), every)
    for one, two in zip(
        torch.autograd.grad(grouped_lora(*inputs, groups, parts).relu_().sum(), every), plain, strict=True
    ):
        assert torch.equal(one, two)


def test_wrong_arguments_are_refused() -> None:
    inputs, groups, parts = make("ranks", torch.float32)
    with pytest.raises(ValueError, match=r"x \(7, 9, 33\) has 63 rows and the groups have 7"):
        grouped_lora(*inputs, group_rows(CASES["ranks"][0], 3), parts)
    _, start, stop, a, b, scale = parts[0]
    for part, message in (
        ((3, start, stop, a, b, scale), r"a part is of group 3; expected 0 to 2"),
        ((0, start, stop, a, b.t(), scale), r"expected a \(R, 33\) and b \(17, R\)"),
        ((0, 4, 19, a, b, scale), r"rows 4:19"),
    ):
        with pytest.raises(ValueError, match=message):
            grouped_lora(*inputs, groups, [part])
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        grouped_lora(*inputs, groups, parts, dropout=1.5)


# Dropout


def test_dropout_reproduces_and_only_trains() -> None:
    inputs, groups, parts = make("ranks", torch.float32)

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return grouped_lora(*inputs, groups, parts, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))
    base = F.linear(*inputs)
    mean = torch.stack([run(seed, **on) for seed in range(60)]).mean(0)
    assert relative_error(mean - base, run(0) - base) < 4 * (0.25 / 0.75 / 60) ** 0.5  # unbiased


def test_backward_uses_the_mask_of_the_forward() -> None:
    # y is linear in x, so x . dy/dx = y for the very mask that was drawn
    for name in ("ranks", "scattered"):
        inputs, groups, parts = make(name, torch.float64)
        y = grouped_lora(*inputs[:2], None, groups, parts, dropout=0.5, training=True)
        torch.randn(3)  # moves the global generator on
        (gradient,) = torch.autograd.grad(y.sum(), inputs[0])
        torch.testing.assert_close((gradient * inputs[0]).sum(), y.sum())


# What is kept, and how much is called


def test_kept_bytes(kept_bytes: Callable[..., int]) -> None:
    rows, width, out = 64, 512, 256
    groups = group_rows([0, 1, -1, 1], 2).spread(rows)
    weight, h = torch.randn(out, width), torch.randn(4, rows, width, requires_grad=True)
    parts = [
        (
            group,
            0,
            out,
            torch.randn(rank, width, requires_grad=True),
            torch.randn(out, rank, requires_grad=True),
            1.0,
        )
        for group, rank in ((0, 4), (1, 16))
    ]
    frozen = [weight, *(t for part in parts for t in part[3:5])]
    x, s = 4 * rows * width * 4, (rows * 4 + 2 * rows * 16) * 4

    def run(recompute: bool = False, **options: Any) -> Tensor:
        act = F.gelu(h)
        source = activation_source(act) if recompute else None
        return grouped_lora(act, weight, None, groups, parts, source=source, **options)

    assert kept_bytes(run, h, *frozen) == x + s
    assert kept_bytes(lambda: run(dropout=0.1, training=True), h, *frozen) == x + s
    assert kept_bytes(lambda: run(True), h, *frozen) == s
    for part in parts:
        part[3].requires_grad_(False)
    assert kept_bytes(run, h, *frozen) == s
    for part in parts:
        part[4].requires_grad_(False)
    assert kept_bytes(run, h, *frozen) == 0


VIEWS = frozenset({"view", "t", "_unsafe_view", "transpose", "slice", "expand", "alias", "detach"})


class Calls(TorchDispatchMode):
    """Counts operator calls that compute or allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.work.append(name)
        return func(*args, **(kwargs or {}))


def test_calls() -> None:
    """One product with W, two thin ones for each of the three pieces; twice that and two sums each in the backward."""
    groups = group_rows([0, 1, -1, 0], 2).spread(40)
    weight = torch.randn(8, 16)
    x = torch.randn(4, 40, 16, requires_grad=True)
    parts = [
        (group, 0, 8, torch.randn(4, 16, requires_grad=True), torch.randn(8, 4, requires_grad=True), 2.0)
        for group in range(2)
    ]
    grouped_lora(x, weight, None, groups, parts)  # the groups are known
    with Calls() as calls:
        y = grouped_lora(x, weight, None, groups, parts)
    base = [name for name in calls.work if name in ("linear", "mm", "addmm")]
    assert len(base) == 1 + 3 and calls.work.count("addmm_") == 3
    assert len(calls.work) == 1 + 3 + 3 + 1  # and one buffer for all thin results
    with Calls() as calls:
        y.backward(torch.ones_like(y))
    products = [name for name in calls.work if name in ("mm", "addmm", "addmm_")]
    # dX; of each piece dS, dX +=, dA, dB
    assert len(products) == 1 + 4 * 3
    # besides: a buffer for each dS, for each dB its scaling into a new one; autograd's own bookkeeping of five leaves
    assert len(calls.work) <= len(products) + 3 + 4 + 5


# Precision and compilers


def test_autocast_computes_and_returns_as_linear_does() -> None:
    inputs, groups, parts = make("ranks", torch.float32)
    cotangent = torch.randn(7, 9, 17)
    high = copies(inputs, torch.float64), groups, moved(parts, torch.float64), cotangent.double()
    want = gradients(reference.grouped_lora, *high)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(grouped_lora, inputs, groups, parts, cotangent.bfloat16())
    for at, (one, two) in enumerate(zip(got, want, strict=True)):
        assert one.dtype == (torch.float32 if at else torch.bfloat16)
        assert relative_error(one, two) < 4 * TOLERANCES[torch.bfloat16], (
            at
        )  # every input is rounded once, too


def test_wide_adapters_on_a_half_model() -> None:
    inputs, groups, parts = make("ranks", torch.bfloat16)
    parts = moved(parts, torch.float32)
    got = gradients(grouped_lora, inputs, groups, parts, torch.ones(7, 9, 17, dtype=torch.bfloat16))
    high = copies(inputs, torch.float64), groups, moved(parts, torch.float64)
    want = gradients(reference.grouped_lora, *high, torch.ones(7, 9, 17, dtype=torch.float64))
    for at, (one, two) in enumerate(zip(got, want, strict=True)):
        assert one.dtype == (torch.bfloat16 if at < 4 else torch.float32)
        assert relative_error(one, two) < 1e-2, at


def test_many_pieces_of_one_group_are_summed_in_fp32() -> None:
    """32 samples of one adapter, in turn with another's: in bfloat16 their running sum would lose three digits."""
    groups = group_rows([0, 1] * 32, 2).spread(32)
    x = torch.randn(64, 32, 16).bfloat16()
    a, b = torch.randn(4, 16, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    parts = [(0, 0, 8, a, b, 1.0), (1, 0, 8, a.detach(), b.detach(), 1.0)]
    cotangent = torch.randn(64, 32, 8).bfloat16()
    y = grouped_lora(x, torch.randn(8, 16).bfloat16(), None, groups, parts)
    got = torch.autograd.grad(y, (a, b), cotangent)
    exact = [t.detach().double().requires_grad_() for t in (a, b)]
    z = x[::2].double() @ exact[0].t() @ exact[1].t()
    want = torch.autograd.grad(z, exact, cotangent[::2].double())
    assert relative_error(got[0], want[0]) < 5e-3 and relative_error(got[1], want[1]) < 5e-3


def test_compiles_whole() -> None:
    inputs, groups, parts = make("slices", torch.float32)
    inputs[1].requires_grad_(False)

    def model(x: Tensor) -> Tensor:
        h = F.gelu(x)
        return grouped_lora(h, *inputs[1:], groups, parts, source=activation_source(h)).sin().sum()

    every = leaves(inputs, parts)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(inputs[0]), model(inputs[0]))
        for one, two in zip(
            torch.autograd.grad(compiled(inputs[0]), every),
            torch.autograd.grad(model(inputs[0]), every),
            strict=True,
        ):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_another_mixture_is_no_new_graph() -> None:
    inputs, _, parts = make("ranks", torch.float32)
    compiled = torch.compile(grouped_lora, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for ids in ([0, 2, 1, 2, -1, 0, 1], [0, 0, 0, 0, 1, 2, 2]):
            groups = group_rows(ids, 3).spread(9)
            torch.testing.assert_close(compiled(*inputs, groups, parts), grouped_lora(*inputs, groups, parts))


def test_functional_transforms() -> None:
    inputs, groups, parts = make("scattered", torch.float64)
    x, weight, bias = (t.detach() for t in inputs)
    rest = [(*part[:3], part[3].detach(), part[4].detach(), part[5]) for part in parts]
    many = torch.stack([x, 2 * x])

    def loss(a: Tensor, x: Tensor) -> Tensor:
        return (
            grouped_lora(x, weight, bias, groups, [(*rest[0][:3], a, *rest[0][4:]), rest[1]]).square().sum()
        )

    a = rest[0][3]
    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(a, many)
    want = torch.stack([torch.autograd.grad(loss(a.requires_grad_(), one), a)[0] for one in many])
    assert relative_error(per_sample, want) < 1e-12
