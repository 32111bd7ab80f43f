"""Adapters that are written into live weights and can be taken out again, bit for bit: what was there is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from peftx.errors import AdapterError
from peftx_kernels import KernelError, SparseTable, sparse_switch

__all__ = ["Fused", "Kept"]


@dataclass
class Kept:
    """What tensors held, and which parameters modules had, before a merge; in the order of the changes.

    Tuples and not functions: a deep copy of a model must give back its own tensors.
    """

    #: (a tensor, a copy of it as it was) or (a module, a name, the parameter it had)
    changes: list[tuple[Any, ...]] = field(default_factory=list)

    def tensor(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor that is about to be changed."""
        old = tensor.detach().clone()
        self.changes.append((tensor, old))
        return old

    def parameter(self, module: nn.Module, name: str) -> None:
        """Remember a parameter that is about to be replaced by another."""
        self.changes.append((module, name, module._parameters[name]))

    @property
    def replaced(self) -> bool:
        """Whether a module has another parameter than it had."""
        return any(len(change) == 3 for change in self.changes)

    def restore(self) -> None:
        """Put back what was, bit for bit."""
        while self.changes:
            _put(self.changes.pop())

    @torch.no_grad()
    def forget(self) -> None:
        """Put no values back, but modules get the parameters they had, with what was loaded into the others."""
        for module, name, parameter in (change for change in self.changes if len(change) == 3):
            parameter.copy_(module._parameters[name])
            module._parameters[name] = parameter
        self.changes.clear()

    def swap(self) -> None:
        """Put back what was and keep what is: called again, it goes the other way."""
        after = Kept()
        while self.changes:
            change = self.changes.pop()
            if len(change) == 3:
                after.parameter(change[0], change[1])
            else:
                after.tensor(change[0])
            _put(change)
        self.changes = after.changes


@torch.no_grad()
def _put(change: tuple[Any, ...]) -> None:
    if len(change) == 3:
        module, name, parameter = change
        module._parameters[name] = parameter
    else:
        tensor, old = change
        tensor.copy_(old)


@dataclass
class Fused:
    """Adapters that are in the weights now. Sparse updates are a table of entries; of all else there is a copy."""

    names: tuple[str, ...]
    table: SparseTable | None
    kept: Kept

    def take_out(self, then: SparseTable | None = None) -> None:
        """Make the weights what they were; and write the entries of another adapter, `then`, in the same go.

        Raises:
            AdapterError: a weight was changed since; nothing is taken out.
        """
        whole = {id(change[0]) for change in self.kept.changes}
        apart = then is None or whole.isdisjoint(id(target) for target in then.targets)
        self._switch(self.table, then if apart else None)
        self.kept.swap()
        if not apart:  # its weights are the base's only now
            self._switch(None, then)

    def put_back(self) -> None:
        """Undo `take_out`."""
        self.kept.swap()
        self._switch(None, self.table)

    def forget(self) -> None:
        """Take the adapters for taken out: the base weights were loaded again."""
        if self.table is not None:
            self.table.forget()
        self.kept.forget()

    def _switch(self, off: SparseTable | None, on: SparseTable | None) -> None:
        try:
            sparse_switch(off, on)
        except KernelError as error:
            raise AdapterError(
                f"a weight was changed while {', '.join(self.names)} was fused into it, so what was there before "
                "cannot be put back; load the base weights again, then call adapted.unfuse(restore=False)"
            ) from error
