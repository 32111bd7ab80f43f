"""What the tests of every operation start from, and how they count what is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from peftx_kernels import use


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The same random numbers for every test, and no implementation left chosen."""
    torch.manual_seed(0)
    yield
    use(None)


@pytest.fixture
def kept_bytes() -> Callable[..., int]:
    """``kept_bytes(run, *parameters)``: bytes that autograd keeps for the result of `run`, without the parameters'."""

    def count(run: Callable[[], Tensor], *parameters: Tensor) -> int:
        own = {p.untyped_storage().data_ptr() for p in parameters}
        seen: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            result = run()
        assert result.requires_grad
        return sum(seen.values())

    return count
