"""What a call of `bottleneck` must look like, in all its implementations."""

from __future__ import annotations

from torch import Tensor

from peftx_kernels.dropout import check_rate

__all__ = ["ACTIVATIONS", "check_call"]

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")


def check_call(
    h: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    residual: Tensor | None,
    scale: float | Tensor,
    activation: str,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_eps: float | None,
    dropout: float,
) -> None:
    """Raise ValueError where arguments do not fit each other."""
    check_rate(dropout)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected one of {', '.join(ACTIVATIONS)}")
    shape = h.shape
    if down.dim() != 2 or down.shape[1] != shape[-1] or up.shape != (shape[-1], down.shape[0]):
        raise ValueError(
            f"down {tuple(down.shape)} and up {tuple(up.shape)} do not fit h {tuple(shape)}; expected "
            f"(units, {shape[-1]}) and ({shape[-1]}, units)"
        )
    if down_bias is not None:
        _same("down_bias", down_bias, down.shape[:1])
    if up_bias is not None:
        _same("up_bias", up_bias, shape[-1:])
    if residual is not None and residual is not h:
        _same("residual", residual, shape)
    if isinstance(scale, Tensor) and scale.numel() != 1:
        raise ValueError(f"scale has shape {tuple(scale.shape)}; expected one value")
    if norm_weight is not None:
        _same("norm_weight", norm_weight, shape[-1:])
    if norm_bias is not None:
        _same("norm_bias", norm_bias, shape[-1:])
    if norm_eps is None and not (norm_weight is None and norm_bias is None):
        raise ValueError("norm_weight and norm_bias belong to a LayerNorm; give its norm_eps as well")


def _same(name: str, given: Tensor, shape: tuple[int, ...]) -> None:
    if given.shape != shape:
        raise ValueError(f"{name} has shape {tuple(given.shape)}; expected {tuple(shape)}")
