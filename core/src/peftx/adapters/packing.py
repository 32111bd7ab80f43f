"""Packing: what an adapter folder holds of a delta, where that is not what is trained.

A map of one bit an entry is trained in full precision and stored as bits. The two forms are kept apart: a checkpoint,
a copy and an average see what is trained (the state), and only an adapter folder sees what is packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from peftx.errors import AdapterError

__all__ = ["Layout", "Packer", "layout_of", "packed_state", "packer_of"]

#: (dtype, shape) by slot
Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@runtime_checkable
class Packer(Protocol):
    """A delta, an owned parameter or a bank whose `packing` is not empty.

    Contract, with x a state (`nn.Module.state_dict` by slot):

    - ``unpack(pack(x))`` is a state with which the holder computes, in evaluation mode, the same bits as with x;
    - ``pack(unpack(p)) == p``, bit for bit, so that what was loaded is saved as it was;
    - slots, dtypes and shapes of ``pack(x)`` depend on the shapes and dtypes of x alone, and bits that mean nothing
      are zero;
    - `pack` and `unpack` read their argument and the options of the holder, and write to neither;
    - `unpack` raises `ArtifactError` for values that `pack` never writes.
    """

    #: name and version of the form; a reader refuses any other
    packing: str

    def pack(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors an adapter folder holds, by slot."""
        ...

    def unpack(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state that stands for what `pack` wrote."""
        ...


def packer_of(holder: Any) -> Packer | None:
    """A holder of an adapter's tensors as a packer; None where its state is stored as it is."""
    form = getattr(holder, "packing", "")
    return holder if isinstance(form, str) and form and isinstance(holder, Packer) else None


def packed_state(packer: Packer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a packer makes of a state, checked, without gradients.

    Raises:
        AdapterError: it is no dict of dense tensors by name.
    """
    with torch.no_grad():
        made: Any = packer.pack({slot: tensor.detach() for slot, tensor in state.items()})
    if not isinstance(made, dict) or not all(
        isinstance(slot, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for slot, tensor in made.items()
    ):
        raise AdapterError(
            f"{type(packer).__name__}.pack returned {type(made).__name__}, expected a dict of dense tensors by name"
        )
    return {slot: tensor.detach() for slot, tensor in sorted(made.items())}


def layout_of(packer: Packer, state: Mapping[str, Tensor]) -> Layout:
    """Dtype and shape of what is stored of a state, by slot. Its values are not read: they may be elsewhere."""
    blank = {slot: torch.zeros(tensor.shape, dtype=tensor.dtype) for slot, tensor in state.items()}
    return {slot: (tensor.dtype, tuple(tensor.shape)) for slot, tensor in packed_state(packer, blank).items()}
