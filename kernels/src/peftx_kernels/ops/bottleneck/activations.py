"""The four activations and their slopes, of fp32 tiles inside kernels; NaN in gives NaN out, as torch has it."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["activated", "slope"]


@triton.jit
def activated(u, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return f(u)."""
    if ACTIVATION == "relu":
        v = tl.where(u <= 0, 0.0, u)
    elif ACTIVATION == "silu":
        v = u / (1 + tl.exp(-u))
    elif ACTIVATION == "gelu":
        v = 0.5 * u * (1 + tl.erf(u * 0.7071067811865476))
    else:
        v = 0.5 * u * (1 + _tanh(0.7978845608028654 * (u + 0.044715 * u * u * u)))
    return v


@triton.jit
def slope(u, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return f'(u)."""
    if ACTIVATION == "relu":
        d = tl.where(u <= 0, 0.0, 1.0)
    elif ACTIVATION == "silu":
        gate = 1 / (1 + tl.exp(-u))
        d = gate * (1 + u * (1 - gate))
    elif ACTIVATION == "gelu":
        d = 0.5 * (1 + tl.erf(u * 0.7071067811865476)) + u * 0.3989422804014327 * tl.exp(-0.5 * u * u)
    else:
        t = _tanh(0.7978845608028654 * (u + 0.044715 * u * u * u))
        d = 0.5 * (1 + t) + 0.5 * u * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * u * u)
    return d


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    return 1 - 2 / (1 + tl.exp(2 * x))
