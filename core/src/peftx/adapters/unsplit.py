"""What a module's weight is to somebody outside while a batch is partitioned among adapters: nothing to compute with.

Inside its own forward a module knows which samples it is working on. Code that reads ``module.weight`` from outside
does not, and would silently give every sample the same adapter. Asking such a weight for its dtype or shape is fine,
computing with it raises. torch's fused encoder layer looks for exactly this kind of tensor and then takes its
ordinary path, which calls the modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peftx.errors import AdapterError

__all__ = ["unsplit"]

_ATTRIBUTES = (
    *("dtype", "device", "shape", "ndim", "layout", "requires_grad", "is_leaf", "grad_fn", "is_nested"),
    *("is_cuda", "is_cpu", "is_meta", "is_mps", "is_xpu", "is_sparse", "is_quantized", "itemsize", "nbytes"),
)
_METHODS = ("dim", "size", "numel", "stride", "element_size", "is_floating_point", "is_complex", "__len__")
_HARMLESS = {getattr(torch.Tensor, name).__get__ for name in _ATTRIBUTES} | {
    getattr(torch.Tensor, name) for name in _METHODS
}


_SAMPLES = "the samples of this batch cannot be told apart there"


class _Unsplit(Tensor):
    _peftx_key: str
    _peftx_why: str

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _HARMLESS:
            return super().__torch_function__(func, types, args, kwargs)
        found = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, _Unsplit)]
        key = found[0]._peftx_key if found else "a weight"
        why = found[0]._peftx_why if found else _SAMPLES
        raise AdapterError(
            f"{key} is read from outside its module, and {why}; run one adapter at a time, or leave this place out of "
            "the adapters"
        )


def unsplit(value: Tensor, key: str, why: str = _SAMPLES) -> Tensor:
    """`value`, but good for its shape, dtype and device alone."""
    with torch._C.DisableTorchFunctionSubclass():
        guarded = value.detach().as_subclass(_Unsplit)
    guarded._peftx_key = key
    guarded._peftx_why = why
    return guarded
