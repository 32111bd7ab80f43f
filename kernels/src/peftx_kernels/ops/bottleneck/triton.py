"""The bottleneck adapter by Triton kernels: one launch forward (two with a norm), two and a sum backward.

Passes over [T, D] tensors: forward, h and r are read and o written (two passes where r is h); a plain composition makes
about nine. Backward, dO and h are read twice and dH written.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.availability import interpreting
from peftx_kernels.context import autocast_off, compute_dtype, is_tracing
from peftx_kernels.ops.bottleneck import op
from peftx_kernels.ops.bottleneck.check import check_call
from peftx_kernels.ops.bottleneck.fold import unfolded
from peftx_kernels.ops.bottleneck.launch import (
    NARROW,
    WIDEST,
    bottleneck_backward,
    bottleneck_forward,
    even,
)

__all__ = ["bottleneck", "fits"]

_FEWEST = 1 << 20
"""Entries of h below which the launches are what costs: an estimate from the cost model, not measured."""


def bottleneck(
    h: Tensor,
    down: Tensor,
    up: Tensor,
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    residual: Tensor | None = None,
    scale: float | Tensor = 1.0,
    activation: str = "gelu",
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    norm_eps: float | None = None,
    dropout: float = 0.0,
    training: bool = False,
) -> Tensor:
    """See ``peftx_kernels.bottleneck``.

    These run as library calls: float64; more than 256 hidden units; more than 64 in fp32, or where the width is no
    multiple of 16 or the units none of 8.
    """
    check_call(
        h,
        down,
        up,
        down_bias,
        up_bias,
        residual,
        scale,
        activation,
        norm_weight,
        norm_bias,
        norm_eps,
        dropout,
    )
    if not _runs(h, down):
        return op.bottleneck(
            h,
            down,
            up,
            down_bias=down_bias,
            up_bias=up_bias,
            residual=residual,
            scale=scale,
            activation=activation,
            norm_weight=norm_weight,
            norm_bias=norm_bias,
            norm_eps=norm_eps,
            dropout=dropout,
            training=training,
        )
    rate = dropout if training else 0.0
    # a tensor on the device and not a number: compilers and captured graphs draw another mask in every run
    seed = torch.randint(1 << 62, (1,), device=h.device) if rate > 0 else None
    own = residual is h
    fixed, learned = (1.0, scale) if isinstance(scale, Tensor) else (float(scale), None)
    numbers = (own, norm_eps, rate, fixed, activation, compute_dtype(h))
    thin = (down, down_bias, up, up_bias, norm_weight, norm_bias, learned)
    function = _Traced if is_tracing() else _Fused
    return function.apply(*numbers, seed, h, None if own else residual, *thin)


def _runs(h: Tensor, down: Tensor) -> bool:
    """Whether the kernels can run this call at all."""
    dtype = compute_dtype(h)
    most = WIDEST if dtype.itemsize == 2 and even(h.shape[-1], down.shape[0]) else NARROW
    return (
        (h.is_cuda or (interpreting() and h.device.type == "cpu"))
        and dtype in (torch.float32, torch.bfloat16, torch.float16)
        and 0 < down.shape[0] <= most
        and not torch._C._are_functorch_transforms_active()
    )


def fits(name: str, h: Tensor, down: Tensor, up: Tensor, **options: Any) -> bool:
    """Whether `auto` takes the kernels: in half precision (fp32 products have no tensor cores), from some rows on."""
    half = compute_dtype(h).itemsize == 2
    return h.is_cuda and half and even(h.shape[-1], down.shape[0]) and h.numel() >= _FEWEST and _runs(h, down)


_NUMBERS = 6  # arguments of apply before the seed


class _Traced(torch.autograd.Function):
    """apply(own, norm_eps, rate, scale, activation, dtype, seed, h, residual, down, down_bias, up, ...) -> o."""

    @staticmethod
    def forward(
        ctx: Any,
        own: bool,
        norm_eps: float | None,
        rate: float,
        scale: float,
        activation: str,
        dtype: torch.dtype,
        seed: Tensor | None,
        h: Tensor,
        residual: Tensor | None,
        *thin: Any,
    ) -> Tensor:
        norms = norm_eps is not None
        with autocast_off(h):
            o, u, statistics = bottleneck_forward(
                h,
                residual,
                *_run(thin, norms, dtype),
                seed,
                own,
                norms,
                norm_eps or 0.0,
                rate,
                scale,
                activation,
            )
        ctx.save_for_backward(h, u, statistics if norms else None, seed, *thin)
        ctx.own, ctx.rate, ctx.scale, ctx.activation, ctx.dtype = own, rate, scale, activation, dtype
        ctx.residual_dtype = None if residual is None else residual.dtype
        return o

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, u, statistics, seed, *thin = ctx.saved_tensors
        down, down_bias, up, up_bias, gamma, beta, learned = thin
        needs_h, needs_residual, *needs = ctx.needs_input_grad[_NUMBERS + 1 :]
        needs_down, needs_down_bias, needs_up, needs_up_bias, needs_gamma, needs_beta, needs_scale = needs
        wanted = [
            needs_h,
            needs_down or needs_gamma,
            needs_up,
            needs_up_bias or (needs_scale and up_bias is not None),
            needs_down_bias or (beta is not None and (needs_down or needs_beta)),
            needs_scale,
        ]
        d_h = d_up = d_down_bias = d_up_bias = d_scale = g = d_bias = None
        with autocast_off(grad):
            width, units = up.shape
            if any(wanted):
                found, sums, inner = bottleneck_backward(
                    grad,
                    h,
                    u,
                    *_run(thin, statistics is not None, ctx.dtype),
                    seed,
                    statistics,
                    ctx.own,
                    ctx.rate,
                    ctx.scale,
                    ctx.activation,
                    wanted,
                )
                d_h = found if needs_h else None
                if sums.numel():
                    every = sums.split([units * width, width * units, width, units])
                    g = every[0].view(units, width) if wanted[1] else None
                    d_up = every[1].view(width, units).to(up.dtype) if needs_up else None
                    d_bias = every[3] if wanted[4] else None
                    d_down_bias = every[3].to(down_bias.dtype) if needs_down_bias else None
                    if needs_up_bias:
                        d_up_bias = (every[2] * (ctx.scale if learned is None else learned)).to(up_bias.dtype)
                    if needs_scale and up_bias is not None:
                        inner = inner + torch.dot(every[2], up_bias.float())
                if needs_scale:
                    d_scale = inner.view(learned.shape).to(learned.dtype)
            d_down, d_gamma, d_beta = unfolded(g, d_bias, down, gamma, beta)
        d_residual = grad.to(ctx.residual_dtype) if needs_residual else None
        return (
            *(None,) * (_NUMBERS + 1),
            d_h,
            d_residual,
            d_down if needs_down else None,
            d_down_bias,
            d_up,
            d_up_bias,
            d_gamma if needs_gamma else None,
            d_beta if needs_beta else None,
            d_scale,
        )


class _Fused(_Traced):
    """The same outside of compilers, which do not follow what refuses a second derivative."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Traced.backward(ctx, grad)


def _run(thin: Any, norms: bool, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """The thin tensors as the kernels take them; with a norm `fold` reads down as it is, and rounds the result."""
    down, down_bias, up, up_bias, gamma, beta, learned = thin
    return down if norms else down.to(dtype), down_bias, up.to(dtype), up_bias, gamma, beta, learned
