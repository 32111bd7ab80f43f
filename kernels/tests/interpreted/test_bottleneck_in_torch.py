"""What torch sees of the bottleneck's kernels: checkpoints, memory, autocast, compilers, other forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases.bottleneck import own, tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from peftx_kernels import bottleneck, use
from peftx_kernels.ops.bottleneck import launch, reference
from peftx_kernels.testing import TOLERANCES, errors


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library form must not stand in for the kernels."""
    monkeypatch.setattr("peftx_kernels.ops.bottleneck.op._Bottleneck", None)


pytestmark = pytest.mark.usefixtures("no_library")


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_checkpointing(reentrant: bool) -> None:
    given = tensors((9,), 6, 20, torch.float32)
    inputs = list(given.values())

    def block(*values: Tensor) -> Tensor:
        options = dict(zip(given, values, strict=True))
        return bottleneck(**options, norm_eps=1e-6, dropout=0.5, training=True).sin()

    torch.manual_seed(2)
    plain = torch.autograd.grad(block(*inputs).sum(), inputs)
    torch.manual_seed(2)
    checkpoint(block, *inputs, use_reentrant=reentrant).sum().backward()
    for one, two in zip(inputs, plain, strict=True):
        assert one.grad is not None and torch.equal(one.grad, two)


# What is kept and made


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_kept_bytes(norm: bool, rate: float) -> None:
    rows, width, units = 96, 64, 8
    given = tensors((rows,), width, units, torch.float32, norm=norm)
    parameters = {t.untyped_storage().data_ptr() for t in given.values()}
    seen: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in parameters:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        h = given["h"] * 2.0
        o = bottleneck(**given | {"h": h}, norm_eps=1e-6 if norm else None, dropout=rate, training=True)
    statistics, seed = 2 * rows * 4 if norm else 0, 8 if rate else 0
    assert o.requires_grad and sum(seen.values()) == (rows * width + rows * units) * 4 + statistics + seed


class Made(TorchDispatchMode):
    """Sizes of the storages that calls of torch make."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "empty" in func.overloadpacket.__name__:
            self.storages[result.untyped_storage().data_ptr()] = result  # held: no address comes twice
        return result


def test_one_wide_tensor_each_way() -> None:
    rows, width = 64, 48
    given = tensors((rows,), width, 16, torch.float32)
    cotangent = torch.randn(rows, width)
    with Made() as forward:
        o = bottleneck(**given, norm_eps=1e-6)
    with Made() as backward:
        torch.autograd.grad(o, [given["h"], given["residual"], given["down"], given["up"]], cotangent)
    for made in (forward, backward):
        assert [t.numel() for t in made.storages.values()].count(rows * width) == 1


# Precision and compilers


def under_autocast(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(**options: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return op(**options)

    return run


@pytest.mark.parametrize("units", [9, 16])
def test_autocast_keeps_the_residual_stream(units: int) -> None:
    given = tensors((4, 9), 32, units, torch.float32)
    for separate in (True, False):
        arguments = given if separate else {k: t for k, t in given.items() if k != "residual"}
        ops = (bottleneck, reference.bottleneck) if separate else (own(bottleneck), own(reference.bottleneck))
        assert under_autocast(ops[0])(**arguments, norm_eps=1e-6).dtype == torch.float32
        found = errors(under_autocast(ops[0]), ops[1], arguments, norm_eps=1e-6)
        found.pop("scale")
        assert all(v < 4 * TOLERANCES[torch.bfloat16] for v in found.values()), found
    o = under_autocast(bottleneck)(h=given["h"], down=given["down"], up=given["up"])
    assert o.dtype == torch.bfloat16


def test_backward_inside_autocast_computes_as_the_forward_did() -> None:
    given = tensors((4,), 8, 6, torch.float32)
    o = bottleneck(**given, norm_eps=1e-6)
    plain = torch.autograd.grad(o.sum(), list(given.values()), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(o.sum(), list(given.values()))
    assert all(torch.equal(one, two) for one, two in zip(plain, inside, strict=True))


def test_what_the_kernels_cannot_do_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for units, width, dtype in (
        (5, 6, torch.float64),
        (384, 16, torch.bfloat16),
        (65, 16, torch.float32),
        (0, 6, torch.float32),
        (80, 17, torch.bfloat16),
        (81, 16, torch.float16),
    ):
        given = tensors((3,), width, units, dtype)
        o = bottleneck(**given, norm_eps=1e-6)
        assert type(o.grad_fn).__name__ == "_BottleneckBackward"
        use("eager")
        assert torch.equal(o, bottleneck(**given, norm_eps=1e-6))
        use("triton")
    given = {k: t.detach() for k, t in tensors((4, 6), 8, 5, torch.float32, separate=False).items()}
    h = given.pop("h")
    mapped = torch.func.vmap(lambda one: bottleneck(one, norm_eps=1e-6, **given))(h)
    torch.testing.assert_close(mapped, bottleneck(h, norm_eps=1e-6, **given))


def test_torch_accepts_the_operations() -> None:
    every = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    width, units = 16, 5
    down, up = torch.randn(units, width), torch.randn(width, units)
    thin = (down, torch.randn(units), up, torch.randn(width), torch.randn(width), torch.randn(width))
    scale, seed = torch.tensor(0.5), torch.tensor([1234567890123])
    wide = torch.randn(16, 6).t(), torch.randn(2, 8, 16)[:, 2:5]
    for h, bare in zip(wide, (True, False), strict=True):
        rest = (down, None, up, None, None, None, None, None) if bare else (*thin, scale, seed)
        # own residual, norm, eps, rate, scale
        options = (bare, not bare, 1e-6, 0.0 if bare else 0.3, 1.0, "gelu")
        residual = None if bare else torch.randn(h.shape)
        torch.library.opcheck(launch.bottleneck_forward.registered, (h, residual, *rest, *options))
        _, u, statistics = launch.bottleneck_forward(h, residual, *rest, *options)
        for needs in ([True] * 6, [False, False, True, False, False, False], [True, *[False] * 5]):
            if bare:
                needs[5] = False
            torch.library.opcheck(
                launch.bottleneck_backward.registered,
                test_utils=every if all(needs[1:5]) or not any(needs[1:5]) else every[:3],
                args=(
                    torch.randn(h.shape),
                    h,
                    u,
                    *rest,
                    None if bare else statistics,
                    bare,
                    *options[3:],
                    needs,
                ),
            )


def test_one_graph_twice_in_it() -> None:
    given = tensors((2, 7), 12, 18, torch.float32)
    inputs = list(given.values())

    def model(given: dict[str, Tensor]) -> Tensor:
        h = bottleneck(**given, norm_eps=1e-6)
        rest = {k: t for k, t in given.items() if k not in ("h", "residual")}
        return bottleneck(h, residual=h, **rest, activation="relu", norm_eps=1e-6).sin()

    results = []
    for run in (torch.compile(model, fullgraph=True, backend="aot_eager"), model):
        o = run(given)
        results.append([o, *torch.autograd.grad(o.sum(), inputs)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_compiled_dropout_drops_anew() -> None:
    """The same mask both ways: relu is linear where it acts, so h . do/dh is o for the very mask that was drawn."""
    given = {k: t.detach() for k, t in tensors((20,), 16, 8, torch.float32).items() if k in ("down", "up")}
    h = torch.randn(20, 16, requires_grad=True)

    def model() -> Tensor:
        return bottleneck(h, **given, activation="relu", dropout=0.5, training=True)

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    first, second = compiled(), compiled()
    assert not torch.equal(first, second)
    (gradient,) = torch.autograd.grad(second.sum(), h)
    torch.testing.assert_close((gradient * h).sum(), second.sum(), rtol=1e-4, atol=1e-4)
