from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from peftx_kernels import activation_source, dora_linear, dora_norm, lora_linear, row_sq, use
from peftx_kernels.ops.dora_linear import reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}
NAMES = ("x", "weight", "bias", "a", "b", "magnitude")
SHAPES = [  # rows, in, out, rank
    ((1,), 5, 3, 1),
    ((1, 7), 33, 17, 2),
    ((63,), 31, 65, 8),
    ((2, 5, 3), 24, 9, 16),
    ((257,), 48, 33, 24),
]


def error(got: Tensor, want: Tensor) -> float:
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).norm() / want.norm().clamp(min=1e-30))


def tensors(rows: tuple[int, ...], width: int, out: int, rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = ((*rows, width), (out, width), (out,), (rank, width), (out, rank))
    given = {name: (torch.randn(shape) * 0.5).to(dtype) for name, shape in zip(NAMES, shapes, strict=False)}
    given["a"] *= 0.2
    # trained magnitudes lie near the norm; in fp32, as an adapter keeps them beside a half-precision model
    norm = dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 0.7)
    given["magnitude"] = norm * (1 + 0.1 * torch.randn(out))
    return {name: t.requires_grad_(name != "weight") for name, t in given.items()}


def gradients(
    op: Callable[..., Tensor], given: dict[str, Tensor], cotangent: Tensor, **options: Any
) -> list[Tensor]:
    y = op(*given.values(), 0.7, **options)
    return [y, *torch.autograd.grad(y, [t for t in given.values() if t.requires_grad], cotangent)]


def copies(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: t.detach().to(dtype).requires_grad_(t.requires_grad) for k, t in given.items()}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_every_gradient(shape: Any, dtype: torch.dtype) -> None:
    given = tensors(*shape, dtype)
    cotangent = torch.randn(*shape[0], shape[2]).to(dtype)
    got = gradients(dora_linear, given, cotangent)
    want = gradients(reference.dora_linear, copies(given, torch.float64), cotangent.double())
    for name, one, two in zip(("y", "x", "bias", "a", "b", "magnitude"), got, want, strict=True):
        assert one.dtype == (given["magnitude"].dtype if name == "magnitude" else dtype)
        assert one.shape == two.shape
        assert error(one, two) < TOLERANCE[dtype] * (1 if name == "y" else 2), name


def test_bias_may_be_missing() -> None:
    x, weight, _, a, b, magnitude = tensors((6,), 8, 5, 2, torch.float64).values()
    inputs = (x, a, b, magnitude)
    results = []
    for op in (dora_linear, reference.dora_linear):
        y = op(x, weight, None, a, b, magnitude, 0.7)
        results.append([y, *torch.autograd.grad(y.sin().sum(), inputs)])
    for one, two in zip(*results, strict=True):
        assert error(one, two) < 1e-12


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_every_choice_of_trained_inputs(recompute: bool, rate: float) -> None:
    for trained in range(1, 64):
        given = tensors((4, 3), 6, 5, 2, torch.float64)
        for bit, name in enumerate(NAMES):
            given[name].requires_grad_(bool(trained >> bit & 1))
        chosen = [t for t in given.values() if t.requires_grad]
        results = []
        for tier in ("eager", "reference"):
            use(tier)
            torch.manual_seed(trained)
            x = F.gelu(given["x"])
            source = activation_source(x) if recompute else None
            y = dora_linear(
                x, *(given[n] for n in NAMES[1:]), 1.3, dropout=rate, training=True, source=source
            )
            results.append([y, *torch.autograd.grad(y.sin().sum(), chosen)])
        for one, two in zip(*results, strict=True):
            assert error(one, two) < 1e-12, [n for n in NAMES if given[n].requires_grad]


def test_starts_exactly_at_the_base() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, weight, bias, a, b, _ = tensors((5, 7), 64, 48, 8, dtype).values()
        b = torch.zeros_like(b)
        magnitude = dora_norm(row_sq(weight), weight, a, b, 2.0)
        assert torch.equal(magnitude, row_sq(weight).sqrt())
        assert torch.equal(dora_linear(x, weight, bias, a, b, magnitude, 2.0), F.linear(x, weight, bias))
        assert torch.equal(
            dora_linear(x, weight, None, a, b, magnitude, 2.0, dropout=0.5, training=True),
            F.linear(x, weight),
        )


def test_merged_weight_gives_the_same() -> None:
    x, weight, bias, a, b, magnitude = tensors((9,), 20, 12, 4, torch.float64).values()
    merged = weight + 0.5 * b @ a
    merged = merged * (magnitude / merged.norm(dim=1))[:, None]
    assert error(dora_linear(x, weight, bias, a, b, magnitude, 0.5), F.linear(x, merged, bias)) < 1e-14


def test_cached_row_lengths_change_nothing() -> None:
    given = tensors((4,), 8, 6, 2, torch.float32)
    cached = dora_linear(*given.values(), 1.0, weight_sq=row_sq(given["weight"]))
    assert torch.equal(cached, dora_linear(*given.values(), 1.0))


def test_a_kept_norm_changes_nothing_and_is_not_measured_again() -> None:
    given = tensors((4,), 8, 6, 2, torch.float32)
    norm = dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 1.0)
    plain = dora_linear(*given.values(), 1.0)
    with Work(least=0) as work:
        kept = dora_linear(*given.values(), 1.0, norm=norm)
    assert torch.equal(kept, plain) and "sqrt_" not in work.calls and "linalg_vector_norm" not in work.calls
    assert (
        sum(name in ("mm", "addmm", "addmm_", "linear") for name in work.calls) == 3
    )  # those of lora_linear
    doubled = dora_linear(*given.values(), 1.0, norm=2 * norm)
    assert error(2 * (doubled - given["bias"]), plain - given["bias"]) < 1e-6
    with pytest.raises(ValueError, match=r"norm has shape \(5,\); a weight \(6, 8\) needs \(6,\)"):
        dora_linear(*given.values(), 1.0, norm=norm[:5])


def test_gates_near_zero_keep_their_gradient() -> None:
    given = tensors((40,), 16, 6, 2, torch.float32)
    with torch.no_grad():
        given["magnitude"][:3] = torch.tensor([0.0, 1e-5, -1e-4])
    cotangent = torch.randn(40, 6)
    want = gradients(reference.dora_linear, copies(given, torch.float64), cotangent.double())
    for one, two in zip(gradients(dora_linear, given, cotangent), want, strict=True):
        assert error(one, two) < 2e-5
    exact = want[-1][:3]
    assert error(gradients(dora_linear, given, cotangent)[-1][:3], exact) < 2e-5


def identity(t: Tensor) -> Tensor:
    return t


def halved(t: Tensor) -> Tensor:
    return -0.5 * t


def halved_(t: Tensor) -> Tensor:
    """In place; unlike relu_, which leaves alone what has a gradient."""
    return t.mul_(-0.5)


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_output_may_be_changed_in_place(hooks: bool, rate: float) -> None:
    given = tensors((9,), 6, 5, 2, torch.float64)
    inputs = [t for t in given.values() if t.requires_grad]

    def run(change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(identity, identity) if hooks else torch.enable_grad():
            y = change(dora_linear(*given.values(), 1.0, dropout=rate, training=True))
        return torch.autograd.grad(y.sum(), inputs)

    for changed, plain in ((torch.relu_, torch.relu), (halved_, halved)):
        for one, two in zip(run(changed), run(plain), strict=True):
            assert error(one, two) < 1e-12


def test_output_changed_in_place_with_nothing_kept_says_so() -> None:
    given = {
        name: t.requires_grad_(name == "magnitude")
        for name, t in tensors((4,), 6, 5, 2, torch.float64).items()
    }
    y = dora_linear(*given.values(), 1.0).relu_()
    with pytest.raises(RuntimeError, match="changed in place and cannot be computed again"):
        y.sum().backward()


@pytest.mark.parametrize("change", [halved, halved_], ids=["kept", "in place"])
def test_under_checkpointing(change: Callable[[Tensor], Tensor]) -> None:
    given = tensors((9,), 6, 5, 2, torch.float64)
    inputs = [t for t in given.values() if t.requires_grad]

    def block(change: Callable[[Tensor], Tensor], *tensors: Tensor) -> Tensor:
        h = F.gelu(tensors[0])
        return change(dora_linear(h, *tensors[1:], 1.0, source=activation_source(h)))

    plain = torch.autograd.grad(block(halved, *given.values()).sum(), inputs)
    y = checkpoint(block, change, *given.values(), use_reentrant=False)
    for one, two in zip(torch.autograd.grad(y.sum(), inputs), plain, strict=True):
        assert error(one, two) < 1e-12


def test_dropout_reproduces_and_only_trains() -> None:
    given = list(tensors((20,), 16, 8, 4, torch.float32).values())

    def run(seed: int, **options: Any) -> Tensor:
        torch.manual_seed(seed)
        return dora_linear(*given, 1.0, **options)

    on = {"dropout": 0.25, "training": True}
    assert torch.equal(run(1, **on), run(1, **on))
    assert not torch.equal(run(1, **on), run(2, **on))
    assert torch.equal(run(1, dropout=0.25), run(1))


def test_wrong_shapes_are_refused() -> None:
    x, weight, bias, a, b, magnitude = tensors((4,), 6, 5, 2, torch.float32).values()
    with pytest.raises(ValueError, match=r"magnitude has shape \(4,\); a weight \(5, 6\) needs \(5,\)"):
        dora_linear(x, weight, bias, a, b, magnitude[:4], 1.0)


def test_fp32_gates_on_a_half_model() -> None:
    """The trained regime of the Scaling DoRA paper: gates of 1 +- 0.0015, 90 % of which bf16 rounds to 1."""
    given = tensors((512,), 128, 96, 8, torch.bfloat16)
    with torch.no_grad():
        given["b"] *= 0.05
        norm = dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 0.7)
        given["magnitude"].copy_(norm * (1 + 0.0015 * torch.randn(96)))
    y = dora_linear(*given.values(), 0.7)
    wide = copies(given, torch.float64)
    want = reference.dora_linear(*wide.values(), 0.7)
    assert error(y, want) < 3e-3


def test_kept_bytes(kept_bytes: Callable[..., int]) -> None:
    rows, width, out, rank = 1024, 512, 256, 8
    given = tensors((rows,), width, out, rank, torch.float32)
    x, s, y, small = rows * width * 4, rows * rank * 4, rows * out * 4, out * 4
    frozen = [given[n] for n in NAMES[1:]]

    def run(recompute: bool = False, **options: Any) -> Tensor:
        act = F.gelu(given["x"])
        source = activation_source(act) if recompute else None
        # the GELU keeps y anyway, as the next layer does in a model
        return F.gelu(dora_linear(act, *frozen, 1.0, source=source, **options))

    def base(**options: Any) -> Tensor:
        return F.gelu(lora_linear(F.gelu(given["x"]), *frozen[:4], 1.0))

    lora = kept_bytes(base, *given.values())
    assert lora == x + s + y
    assert kept_bytes(run, *given.values()) == lora + small
    assert kept_bytes(lambda: run(dropout=0.1, training=True), *given.values()) == lora + small
    assert kept_bytes(lambda: run(True), *given.values()) == lora + small - x
    given["magnitude"].requires_grad_(False)
    assert kept_bytes(run, *given.values()) <= lora + small


class Work(TorchDispatchMode):
    """Calls on tensors of at least so many entries."""

    def __init__(self, least: int = 14 * 8) -> None:
        super().__init__()
        self.least = least
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if max((t.numel() for t in args if isinstance(t, Tensor)), default=0) >= self.least:
            self.calls.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_passes_over_the_output() -> None:
    given = tensors((14,), 8, 8, 1, torch.float32)
    given["bias"].requires_grad_(False)
    with Work() as work:
        y = dora_linear(*given.values(), 2.0)
    assert [c for c in work.calls if c in ("mul", "add", "add_", "addcmul", "clone")] == ["addcmul"]
    with Work() as work:
        y.backward(torch.ones_like(y))
    elementwise = [
        c for c in work.calls if c in ("mul", "add", "sub", "div", "sum", "clone", "copy_", "addcmul")
    ]
    assert sorted(elementwise) == ["mul", "mul", "sum", "sum"]  # dY Y, its sum, the sum of dY, g dY


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole(backend: str) -> None:
    given = tensors((2, 7), 12, 18, 3, torch.float32)
    weight_sq = row_sq(given["weight"])

    def model(given: dict[str, Tensor]) -> Tensor:
        h = F.gelu(given["x"])
        y = dora_linear(
            h, *(given[n] for n in NAMES[1:]), 2.0, weight_sq=weight_sq, source=activation_source(h)
        )
        return lora_linear(y, given["weight"].t(), None, given["b"].t(), given["a"].t(), 1.0).sin()

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    inputs = [t for t in given.values() if t.requires_grad]
    got, want = compiled(given), model(given)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    for one, two in zip(
        torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_without_data() -> None:
    """Shapes alone are enough for a memory estimate (meta) and for an exporter (fake tensors)."""
    given = {
        k: t.detach().to("meta").requires_grad_() for k, t in tensors((4, 3), 6, 5, 2, torch.float32).items()
    }
    y = dora_linear(*given.values(), 1.0)
    y.sum().backward()
    assert y.is_meta and y.shape == (4, 3, 5)
    assert all(t.grad is not None and t.grad.shape == t.shape for t in given.values())
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert dora_linear(*tensors((4, 3), 6, 5, 2, torch.float32).values(), 1.0).shape == (4, 3, 5)


def test_without_gradients() -> None:
    given = [t.detach() for t in tensors((4,), 6, 5, 2, torch.float32).values()]
    plain = dora_linear(*given, 1.0)
    with torch.inference_mode():
        assert torch.equal(dora_linear(given[0].clone(), *given[1:], 1.0), plain)


def test_autocast() -> None:
    given = tensors((4, 9), 32, 16, 4, torch.float32)
    cotangent = torch.randn(4, 9, 16)
    want = gradients(reference.dora_linear, copies(given, torch.float64), cotangent.double())
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(dora_linear, given, cotangent.bfloat16())
        norm = dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 0.7)
    assert norm.dtype == torch.float32
    assert torch.equal(norm, dora_norm(row_sq(given["weight"]), given["weight"], given["a"], given["b"], 0.7))
    assert got[0].dtype == torch.bfloat16
    for one, two in zip(got, want, strict=True):
        assert error(one, two) < 4 * TOLERANCE[torch.bfloat16]
