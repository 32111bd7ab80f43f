"""How much lives at once in what a piece of code makes, counted storage by storage; Triton kernels are not seen."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["InFlight"]


class InFlight(TorchDispatchMode):
    """The most bytes that lived at once among storages made since `begin`."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = self.now = 0

    def begin(self) -> None:
        """Forget what lives; count from here."""
        self.alive, self.now = {}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in before and storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, self.alive, storage._cdata)
        return out

    def _gone(self, alive: dict[int, int], key: int) -> None:
        size = alive.pop(key, 0)
        if alive is self.alive:
            self.now -= size
