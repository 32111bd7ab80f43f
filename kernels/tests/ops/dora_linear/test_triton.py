"""What can be said of the kernels without running them; `tests/interpreted` runs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is published for Linux only")

from peftx_kernels.ops.dora_linear import gates, lengths
from peftx_kernels.ops.dora_linear.launch import dora_lengths
from peftx_kernels.ops.dora_linear.triton import fits
from peftx_kernels.ops.lora_linear import calls


def fitting(rows: int, width: int, out: int, rank: int, dtype: torch.dtype) -> bool:
    """As `auto` asks on a machine with a GPU."""
    with FakeTensorMode():
        x = torch.empty(rows, width, device="cuda", dtype=dtype)
        weight = torch.empty(out, width, device="cuda", dtype=dtype)
        a, b = torch.empty(rank, width, device="cuda"), torch.empty(out, rank, device="cuda")
        magnitude = torch.empty(out, device="cuda")
        return fits("dora_linear", x, weight, None, a, b, magnitude, 1.0, dropout=0.0)


def test_what_auto_gives_to_the_kernels() -> None:
    bf16 = torch.bfloat16
    assert fitting(12608, 768, 768, 16, bf16) and fitting(12608, 768, 3072, 16, torch.float16)
    assert fitting(4096, 8192, 8192, 384, bf16)  # over the library's product
    assert not fitting(12608, 768, 768, 16, torch.float32)
    assert not fitting(64, 768, 768, 16, bf16)  # less work than a launch
    assert not fitting(12608, 768, 770, 16, bf16)  # rows that are not aligned
    x = torch.empty(12608, 768, dtype=bf16)
    assert not fits("dora_linear", x, x, None, x, x, x[0], 1.0)
    assert not fits("dora_norm", x[0], x, x, x, 1.0)
    with FakeTensorMode():
        for dtype in (torch.float32, bf16):
            weight = torch.empty(770, 768, device="cuda", dtype=dtype)
            for rank in (8, 384):
                a, b = torch.empty(rank, 768, device="cuda"), torch.empty(770, rank, device="cuda")
                assert fits("dora_norm", weight[:, 0], weight, a, b, 1.0) == (dtype is bf16 or rank == 8)
            assert not fits("dora_norm", weight[:, 0].double(), weight.double(), weight, weight, 1.0)


class Launched:
    """Stands for a kernel: takes any grid and any arguments, and does nothing."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.grids.append(grid)
        return lambda *arguments, **options: None


class Memory(TorchDispatchMode):
    """Bytes of all tensors made, as if none were freed in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in args if isinstance(t, Tensor)}
        if isinstance(made, Tensor) and not made._is_view() and id(made.untyped_storage()) not in given:
            self.bytes += made.numel() * made.element_size()
        return made


@pytest.mark.parametrize("types", [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")])
@pytest.mark.parametrize(("width", "most"), [(8192, 5e6), (768, 5e6), (28672, 5e6)])
def test_workspace_of_the_norm(
    width: int, most: float, types: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 8192 x 8192 and rank 384 below 5 MB, on the largest GPU too, where an update as a matrix takes 128 or 256."""
    kernels = {name: Launched() for name in ("gram", "terms", "finish")}
    for name, kernel in kernels.items():
        monkeypatch.setattr(lengths, name, kernel)
    monkeypatch.setattr(calls, "_multiprocessors", lambda device: 160)
    weight, a = (getattr(torch, name) for name in types)
    given = (
        torch.empty(8192, device="meta"),
        torch.empty(8192, width, device="meta", dtype=weight),
        torch.empty(384, width, device="meta", dtype=a),
        torch.empty(8192, 384, device="meta", dtype=a),
    )
    with Memory() as memory:
        norm = dora_lengths.launch(*given, 0.7)
    assert norm.shape == (8192,) and norm.dtype == torch.float32
    assert 384 * 384 * 4 < memory.bytes < most, memory.bytes
    assert [len(kernel.grids) for kernel in kernels.values()] == [1, 1, 1]


@pytest.mark.parametrize("ranks", [1, 16, 384, 1000])
def test_shares_of_the_gram(ranks: int) -> None:
    shares = lengths.most_shares(ranks)
    assert shares >= 1 and (shares == 1 or shares * ranks * ranks * 4 <= 2 << 20)


def test_every_chosen_block_is_compiled_ahead_of_time() -> None:
    compiled = [(k.function, k.constants) for k in (*lengths.kernels(), *gates.kernels())]

    def there(function: Any, **constants: int) -> bool:
        return any(f is function and constants.items() <= c.items() for f, c in compiled)

    for ranks in (1, 16, 17, 384):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for even in (True, False):
                for split in (True, False):
                    at = lengths.configuration(ranks, dtype, even=even, split=split)
                    exact = dtype is torch.float32
                    blocks = {"BLOCK_R": at.r, "BLOCK_K": at.k, "EXACT": exact}
                    split = split and not exact
                    assert there(lengths.terms, BLOCK_N=at.n, BLOCK_Q=lengths.INNER, SPLIT=split, **blocks)
                    at = lengths.configuration(ranks, dtype, even=even, split=True)
                    assert there(lengths.gram, BLOCK_R=at.r, BLOCK_K=at.k, EXACT=exact)
    for even in (True, False):
        rows = gates.configuration(even=even)
        assert there(gates.gate_pass, BLOCK_T=rows.t, BLOCK_N=rows.n)
    assert there(gates.settle, **gates.SETTLE) and there(lengths.finish, **lengths.FINISH)
