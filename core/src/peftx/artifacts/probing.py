"""What a merge does to the outputs: the adapted model, the base and the merged model on the same inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftx.errors import ArtifactError

__all__ = ["OutputDrift", "Probe", "compare", "run_probe"]

#: inputs of the model (a tensor, a tuple of arguments, a dict of keyword arguments), or a function of the model
Probe = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any] | Callable[[nn.Module], Any]


@dataclass(frozen=True, slots=True)
class OutputDrift:
    """One output of the merged model against the adapted one.

    `max_abs`: largest absolute difference. `relative`: that over the largest magnitude of the output. `rounding`: what
    one rounding in the base's dtype does to a value of that magnitude. `lost`: norm of the difference over the norm of
    what the adapter changed in this output, None where that is below `rounding`. `flipped` of `predictions`: how many
    arg max over the last dimension became another, None where the output is no scores of classes.
    """

    name: str
    max_abs: float
    relative: float
    rounding: float
    lost: float | None = None
    flipped: int | None = None
    predictions: int | None = None


def run_probe(model: nn.Module, probe: Probe) -> dict[str, Tensor]:
    """Outputs by name, in evaluation mode, without gradients, from the same random numbers at every call.

    Raises:
        ArtifactError: the outputs hold no tensor of numbers, or NaN.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with _evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        if isinstance(probe, Tensor):
            result = model(probe)
        elif isinstance(probe, Mapping):
            result = model(**probe)
        elif isinstance(probe, tuple | list):
            result = model(*probe)
        else:
            result = probe(model)
    found = {name: value.detach().clone() for name, value in _tensors(result)}
    if not found:
        raise ArtifactError(
            f"the probe gave a {type(result).__name__} without a tensor; give inputs of the model, or a function of "
            "the model that returns its outputs"
        )
    return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # module by module: parts of a frozen trunk may be in evaluation mode already, and have to be so afterwards
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of a result by name; whatever is no tensor or collection of them (a cache, say) is left out."""
    if isinstance(value, Tensor):
        if value.numel():
            yield name or "output", value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from _tensors(part, f"{name}.{index}" if name else str(index))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            yield from _tensors(part, f"{name}.{field.name}" if name else field.name)


def compare(
    adapted: dict[str, Tensor],
    merged: dict[str, Tensor],
    base: dict[str, Tensor] | None,
    dtype: torch.dtype,
) -> tuple[OutputDrift, ...]:
    """The merged model's outputs against the adapted model's; `dtype` is the coarsest the merge wrote."""
    if adapted.keys() != merged.keys():
        odd = sorted(adapted.keys() ^ merged.keys())[0]
        raise ArtifactError(f"the merged model's outputs differ in kind from the adapted one's: {odd}")
    alone = len(adapted) == 1
    return tuple(
        _drift(name, value, merged[name], None if base is None else base.get(name), dtype, alone)
        for name, value in adapted.items()
    )


def _drift(
    name: str, adapted: Tensor, merged: Tensor, base: Tensor | None, dtype: torch.dtype, alone: bool
) -> OutputDrift:
    if adapted.shape != merged.shape:
        return OutputDrift(name, float("inf"), float("inf"), 0.0)
    a, m = _wide(adapted), _wide(merged)
    # equal infinities (masked scores) are no difference; NaN on one side alone is an infinite one
    difference = torch.where((a == m) | (a.isnan() & m.isnan()), 0.0, (a - m).abs())
    difference = torch.nan_to_num(difference, nan=float("inf"), posinf=float("inf"))
    finite = a[a.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    worst = float(difference.max())
    coarse = max((dtype, adapted.dtype), key=_epsilon) if adapted.is_floating_point() else dtype
    rounding = _epsilon(coarse) * largest
    lost = None
    if base is not None and base.shape == adapted.shape:
        effect = torch.nan_to_num(a - _wide(base), posinf=0.0, neginf=0.0)
        if float(effect.abs().max()) > rounding:
            lost = float(difference.norm() / effect.norm())
    flipped = predictions = None
    scores = adapted.is_floating_point() and adapted.dim() > 1 and adapted.shape[-1] > 1
    if scores and (name.rpartition(".")[2] == "logits" or (alone and adapted.dim() == 2)):
        flipped = int((a.argmax(-1) != m.argmax(-1)).sum())
        predictions = a[..., 0].numel()
    relative = worst / largest if largest else (0.0 if worst == 0 else float("inf"))
    return OutputDrift(name, worst, relative, rounding, lost, flipped, predictions)


def _wide(value: Tensor) -> Tensor:
    if value.is_complex():
        return torch.view_as_real(value).double()
    return value.to("cpu", torch.float64)


def _epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
