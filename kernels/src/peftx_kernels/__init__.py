"""Tensor operations for parameter-efficient fine-tuning: a leaf that depends on torch and nothing else.

``import peftx_kernels`` does not import torch; each name below is imported on first use.

- ``lora_linear``, ``lora_linear_slices``: a frozen linear map plus low-rank corrections.
- ``dora_linear``, ``dora_norm``, ``row_sq``: the same with a trained length of every output row.
- ``snell_linear``, ``snell_update``: the same with kernelised sparse updates, made from ``SnellPart``.
- ``bottleneck``: a residual adapter, norm - down - activation - up - scale - add.
- ``grouped_lora``, ``group_rows``, ``Groups``: many LoRA adapters in one batch, each for its own rows.
- ``sparse_switch``, ``SparseTable``: sparse adapters written into live weights and taken out, bit for bit.
- ``activation_source``: lets an op recompute its input in the backward pass instead of keeping it.
- ``tiers``, ``use``, ``register``: which implementation each op runs (environment variable ``PEFTX_KERNELS``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from peftx_kernels.table import KernelError, Tier, register, tiers, use

if TYPE_CHECKING:
    from peftx_kernels.activation import ActivationSource, activation_source
    from peftx_kernels.ops.bottleneck import bottleneck
    from peftx_kernels.ops.dora_linear import dora_linear, dora_norm, row_sq
    from peftx_kernels.ops.grouped_lora import Groups, group_rows, grouped_lora
    from peftx_kernels.ops.lora_linear import lora_linear, lora_linear_slices
    from peftx_kernels.ops.snell_linear import SnellPart, snell_linear, snell_update
    from peftx_kernels.ops.sparse_switch import SparseTable, sparse_switch

__version__ = "0.1.0"

__all__ = [
    "ActivationSource",
    "Groups",
    "KernelError",
    "SnellPart",
    "SparseTable",
    "Tier",
    "activation_source",
    "bottleneck",
    "dora_linear",
    "dora_norm",
    "group_rows",
    "grouped_lora",
    "lora_linear",
    "lora_linear_slices",
    "register",
    "row_sq",
    "snell_linear",
    "snell_update",
    "sparse_switch",
    "tiers",
    "use",
]

_HOMES = {
    "ActivationSource": "peftx_kernels.activation",
    "Groups": "peftx_kernels.ops.grouped_lora",
    "SnellPart": "peftx_kernels.ops.snell_linear",
    "SparseTable": "peftx_kernels.ops.sparse_switch",
    "activation_source": "peftx_kernels.activation",
    "bottleneck": "peftx_kernels.ops.bottleneck",
    "dora_linear": "peftx_kernels.ops.dora_linear",
    "dora_norm": "peftx_kernels.ops.dora_linear",
    "group_rows": "peftx_kernels.ops.grouped_lora",
    "grouped_lora": "peftx_kernels.ops.grouped_lora",
    "lora_linear": "peftx_kernels.ops.lora_linear",
    "lora_linear_slices": "peftx_kernels.ops.lora_linear",
    "row_sq": "peftx_kernels.ops.dora_linear",
    "snell_linear": "peftx_kernels.ops.snell_linear",
    "snell_update": "peftx_kernels.ops.snell_linear",
    "sparse_switch": "peftx_kernels.ops.sparse_switch",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
