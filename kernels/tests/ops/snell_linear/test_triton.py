"""What can be said of the kernels without running them; `tests/interpreted` runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="Triton is published for Linux only")

from peftx_kernels import lora_linear
from peftx_kernels.ops.snell_linear import compiled, launch, sizes, triton
from peftx_kernels.ops.snell_linear.part import SnellPart

KERNELS = (
    "begin count form stats join_stats contract finish moments join_moments".split()
)  # what `launch` calls them
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    int: "i32",
    float: "fp32",
}


def a_part(start: int, stop: int, width: int, mix: bool, size: int = 4) -> SnellPart:
    a, b = (torch.randn(2, n, size).requires_grad_() for n in (width, stop - start))
    mixture = tuple(torch.ones(1).requires_grad_() for _ in range(3)) if mix else None
    return SnellPart(start, stop, a, b, mix=mixture)  # type: ignore[arg-type]


class Noted:
    """Stands for a kernel and notes what it is launched with."""

    def __init__(self, kernel: Any, launched: set[Any]) -> None:
        self.kernel, self.launched = kernel, launched

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(0 < programs < 1 << 16 for programs in grid)
        return self

    def __call__(self, *arguments: Any, num_warps: int = 4, **named: Any) -> None:
        names = self.kernel.arg_names
        given = dict(zip(names, arguments, strict=False)) | named
        assert given.keys() == set(names)
        constants = {p.name for p in self.kernel.params if p.is_constexpr}
        types = tuple(
            given[n] if n in constants else TYPES[t.dtype if isinstance(t := given[n], Tensor) else type(t)]
            for n in names
        )
        self.launched.add((self.kernel.__name__, num_warps, types))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    found: set[Any] = set()
    monkeypatch.setattr(triton, "_ANYWHERE", True)
    for name in KERNELS:
        monkeypatch.setattr(launch, f"{name}_kernel", Noted(getattr(launch, f"{name}_kernel"), found))
    return found


def test_what_is_launched_is_what_is_compiled_ahead_of_time(launched: set[Any]) -> None:
    """Kernel for kernel, type for type: a form that is not compiled there might not compile at all."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for mix in (False, True):
            x, weight = (torch.randn(n, 24, dtype=dtype).requires_grad_() for n in (5, 40))
            parts = [a_part(0, 9, 24, mix), a_part(20, 40, 24, mix, 7)]
            for dropout in (0.0, 0.5):
                triton.snell_linear(x, weight, None, parts, dropout=dropout, training=True).sum().backward()
            triton.snell_update(parts[0]).sum().backward()
            dense = parts[1]._replace(mode="dense", sparsity=torch.tensor(0.5, dtype=torch.float64))
            triton.snell_linear(x, weight, None, [dense]).sum().backward()
    expected = {
        (
            kernel.function.__name__,
            kernel.num_warps,
            tuple(
                kernel.constants[name] if kind == "constexpr" else kind for name, kind in kernel.types.items()
            ),
        )
        for kernel in compiled.kernels()
    }
    assert launched == expected


def fitting(dtype: torch.dtype, *, device: str = "cuda", width: int = 768, out: int = 3072) -> bool:
    """As `auto` asks on a machine with a GPU."""
    with FakeTensorMode():
        x = torch.empty(64, width, device=device, dtype=dtype)
        a, b = (torch.empty(2, n, 4, device=device, dtype=dtype) for n in (width, out))
        part = SnellPart(0, out, a, b)
        one = triton.fits("snell_linear", x, None, None, [part])
        assert one == triton.fits("snell_update", part)
        assert not triton.fits("snell_linear", x, None, None, [])
        assert not triton.fits("snell_linear", x, None, None, [part._replace(b=torch.empty(b.shape))])
        return one


def test_what_auto_gives_to_the_kernels() -> None:
    assert all(fitting(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16))
    assert not fitting(torch.float64) and not fitting(torch.float32, device="cpu")
    assert fitting(torch.float32, width=1 << 15, out=(1 << 16) - 1)
    assert not fitting(torch.float32, width=1 << 15, out=1 << 16)  # numbers of entries are 32-bit integers


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (768, 3072), (3072, 768), (768, 768), (11008, 4096)])
@pytest.mark.parametrize("size", [1, 4, 192])
def test_pieces_cover_a_map_once(shape: tuple[int, int], size: int) -> None:
    out, width = shape
    down, across, each_down, each_across = sizes.blocks(out, width, 2, size)
    for length, tile, blocks, each in (
        (out, sizes.CONTRACT.rows, down, each_down),
        (width, sizes.CONTRACT.columns, across, each_across),
    ):
        assert (blocks - 1) * each * tile < length <= blocks * each * tile
    columns, splits, rows = sizes.column_splits(out, width)
    assert (splits - 1) * rows < out <= splits * rows and rows % sizes.SUMS.rows == 0
    assert (columns - 1) * sizes.SUMS.columns < width <= columns * sizes.SUMS.columns


WIDTH, TOKENS = 768, 197  # ViT-B/16
LAYERS = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH))


def kept_by_a_block(batch: int, dtype: torch.dtype, kept_bytes: Callable[..., int]) -> int:
    """Bytes that a transformer block with LoRA of rank 8 on each of its linears keeps for its backward pass."""
    frozen = [torch.randn(shape, dtype=dtype) for shape in LAYERS]
    a = [torch.randn(8, width).requires_grad_() for _, width in LAYERS]
    b = [torch.randn(out, 8).requires_grad_() for out, _ in LAYERS]
    ones, x = torch.ones(WIDTH, dtype=dtype), torch.randn(batch, TOKENS, WIDTH, dtype=dtype).requires_grad_()

    def linear(x: Tensor, at: int) -> Tensor:
        return lora_linear(x, frozen[at], None, a[at], b[at], 1.0)

    def block() -> Tensor:
        joined = linear(F.layer_norm(x, (WIDTH,), ones, ones), 0)
        q, k, v = joined.view(batch, TOKENS, 3, 12, WIDTH // 12).permute(2, 0, 3, 1, 4)
        h = x + linear(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), 1)
        return h + linear(F.gelu(linear(F.layer_norm(h, (WIDTH,), ones, ones), 2)), 3)

    return kept_bytes(block, ones, *frozen, *a, *b)


@pytest.mark.parametrize(
    ("dtype", "batch", "most"),
    [(torch.float32, 8, 1.01), (torch.bfloat16, 8, 1.013), (torch.bfloat16, 32, 1.003)],
    ids=str,
)
def test_peak_of_a_training_step_beside_lora(
    dtype: torch.dtype, batch: int, most: float, kept_bytes: Callable[..., int]
) -> None:
    """Buffers counted, rank 8 on ViT-B, at the start of the backward pass, where all is kept and the largest map taken.

    That a contraction has G and its partial sums in flight, and nothing else, is held by the interpreted tests.
    """
    depth, size = 12, dtype.itemsize
    weights = depth * size * sum(out * width for out, width in LAYERS)
    kept = depth * kept_by_a_block(2, dtype, kept_bytes) * batch // 2
    s, notes = TOKENS * batch * 8 * size, 4 * launch.noted(WIDTH, False)
    in_flight = 0
    for out, width in LAYERS:
        down, across, *_ = sizes.blocks(out, width, 2, 4)
        sums = 4 * 8 * (down * width + across * out)
        in_flight = max(in_flight, out * width * size + sums)
    lora = weights + kept
    assert lora < lora + depth * len(LAYERS) * (notes - s) + in_flight < most * lora
