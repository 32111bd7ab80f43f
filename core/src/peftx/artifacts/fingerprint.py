"""A cheap identity of a base model: enough to notice another architecture or other weights, without reading all."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from peftx.adapters.host import root_board
from peftx.adapters.slot import is_reserved
from peftx.artifacts.sharded import whole

__all__ = ["Fingerprint", "fingerprint"]

_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`structure` covers names and shapes; `values` also dtypes and sampled entries of every tensor."""

    structure: str
    values: str


def fingerprint(model: nn.Module, skip: Collection[str] = ()) -> Fingerprint:
    """Fingerprint a model's base parameters and buffers; adapters on it, or fused into it, do not count.

    Args:
        model: the model, adapted or not.
        skip: parameter names left out of `values`: those an adapter replaces whole, such as a new head's.
    """
    board = root_board(model)
    if board is None:
        return _of(model, skip)
    with board.unfused():
        return _of(model, skip)


def _of(model: nn.Module, skip: Collection[str]) -> Fingerprint:
    structure, values = hashlib.sha256(), hashlib.sha256()
    skipped = set(skip)
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if is_reserved(name) or not isinstance(tensor, torch.Tensor):  # modules may keep extra state
            continue
        structure.update(f"{name}:{tuple(tensor.shape)};".encode())
        if name in skipped:
            continue
        flat = whole(tensor.detach()).reshape(-1)
        # running statistics move with every training forward of a trunk that is not frozen; they are no identity
        if flat.numel() == 0 or not flat.dtype.is_floating_point or _is_statistic(name):
            continue
        index = torch.linspace(0, flat.numel() - 1, min(_SAMPLES, flat.numel()), dtype=torch.float64).long()
        sample = flat[index.to(flat.device)].to("cpu", torch.float64)
        values.update(f"{name}:{tensor.dtype};".encode())
        values.update(sample.numpy().tobytes())
    return Fingerprint(structure.hexdigest()[:32], values.hexdigest()[:32])


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var")
