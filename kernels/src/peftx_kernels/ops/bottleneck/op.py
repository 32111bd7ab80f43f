"""The bottleneck adapter from library calls: the branch is added into one new tensor, and thin tensors alone are kept.

Forward     Z = LN(H);  U = Z Wd^T + bd;  V = mask f(U);  O = R + s bu;  O += s V Wu^T
Backward    E = dO Wu;  dU = s E mask f'(U);  dWu = s dO^T V;  dbu = s sum_t dO;  ds = <V, E> + <bu, sum_t dO>
            dZ = dU Wd (+ dO where R is H and there is no norm);  dWd = dU^T Z;  dbd = sum_t dU

With Z^ for Z before gamma and beta, G = dU^T Z^ gives the norm's gradients too, and no wide tensor is summed (`fold`).
Kept are H, which the block keeps anyway, and U, which is thin; Z and V are made again. Plain autograd also keeps Z and
V, and it makes three [T, D] tensors that are not here: the branch, the scaled branch and the scaled gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.context import as_rows, autocast_off, compute_dtype, is_tracing, wide
from peftx_kernels.dropout import draw_seed, keep_mask, kept_fraction
from peftx_kernels.ops.bottleneck.check import check_call
from peftx_kernels.ops.bottleneck.fold import unfolded

__all__ = ["bottleneck"]


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
    """See ``peftx_kernels.bottleneck``."""
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
    rate = dropout if training else 0.0
    dtype = compute_dtype(h)
    own = residual is h
    if is_tracing():
        z = h if norm_eps is None else F.layer_norm(h, h.shape[-1:], norm_weight, norm_bias, norm_eps)
        return _functional(z, down, up, down_bias, up_bias, residual, scale, activation, rate, dtype)
    fixed, learned = (1.0, scale) if isinstance(scale, Tensor) else (scale, None)
    plan = _Plan(fixed, activation, norm_eps, rate, draw_seed() if rate > 0 else 0, own, dtype)
    given = (None if own else residual, down, up, down_bias, up_bias, norm_weight, norm_bias, learned)
    return _Bottleneck.apply(plan, h, *given)


def _functional(
    z: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None,
    up_bias: Tensor | None,
    residual: Tensor | None,
    scale: float | Tensor,
    activation: str,
    rate: float,
    dtype: torch.dtype,
) -> Tensor:
    """The same equation without mutation or seeds: compilers fuse it and plan its recomputation themselves."""

    def cast(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.to(dtype)

    v = _activated(F.linear(z.to(dtype), down.to(dtype), cast(down_bias)), activation)
    if rate > 0:
        v = F.dropout(v, rate)
    o = (scale * F.linear(v, up.to(dtype), cast(up_bias))).to(dtype)
    return o if residual is None else residual + o


@dataclass(slots=True)
class _Plan:
    scale: float  # 1 where it is a tensor
    activation: str
    norm_eps: float | None
    rate: float
    seed: int
    own: bool  # the residual is h
    dtype: torch.dtype  # of the products


class _Bottleneck(torch.autograd.Function):
    """apply(plan, h, residual, down, up, down_bias, up_bias, norm_weight, norm_bias, scale) -> o."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, h: Tensor, residual: Tensor | None, *thin: Any) -> Tensor:
        down, up, down_bias, up_bias, norm_weight, norm_bias, scale = thin
        with autocast_off(h):
            z = _input(h, norm_weight, norm_bias, plan)[0]
            u = F.linear(
                z, _cast(down, plan.dtype), None if down_bias is None else _cast(down_bias, plan.dtype)
            )
            v = _hidden(u, _mask(u, plan), plan)
            o = _expanded(h, h if plan.own else residual, v, up, up_bias, scale, plan)
        ctx.save_for_backward(h, u, *thin)
        ctx.plan = plan
        ctx.residual_dtype = None if residual is None else residual.dtype
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, u, down, up, down_bias, up_bias, norm_weight, norm_bias, scale = ctx.saved_tensors
        plan: _Plan = ctx.plan
        _, needs_h, needs_residual, needs_down, needs_up, *needs_others = ctx.needs_input_grad
        needs_down_bias, needs_up_bias, needs_gamma, needs_beta, needs_scale = needs_others
        d_h = d_down = d_up = d_down_bias = d_up_bias = d_gamma = d_beta = d_scale = None
        with autocast_off(grad):
            high = wide(plan.dtype)
            factor = plan.scale if scale is None else scale
            flat = as_rows(grad)
            d_o = _cast(flat, plan.dtype)
            mask = _mask(u, plan)
            v: Any = _hidden(u, mask, plan) if needs_up or needs_scale else None
            total: Any = None
            if needs_up_bias or (needs_scale and up_bias is not None):
                total = d_o.sum(0, dtype=high)
            if needs_up:
                d_up = _cast(_product(d_o.t(), v).mul_(factor), up.dtype)
            if needs_up_bias:
                d_up_bias = (total * factor).to(up_bias.dtype)
            reads_z = needs_down or needs_gamma
            if needs_h or reads_z or needs_down_bias or needs_beta or needs_scale:
                d_v = _product(d_o, _cast(up, plan.dtype))
                if needs_scale:
                    d_scale = (v.to(high) * d_v).sum()
                    d_scale = d_scale if up_bias is None else d_scale + torch.dot(up_bias.to(high), total)
                    d_scale = d_scale.view(scale.shape).to(scale.dtype)
                d_u = _activation_gradient((d_v if mask is None else d_v.mul_(mask)).mul_(factor), u, plan)
                normal: tuple[Tensor, ...] = ()
                if reads_z or (needs_h and plan.norm_eps is not None):
                    normal = _input(h, None, None, plan)
                g = d_u.t() @ normal[0] if reads_z else None
                d_bias = None
                if needs_down_bias or (norm_bias is not None and (needs_down or needs_beta)):
                    d_bias = d_u.sum(0, dtype=high)
                    d_down_bias = d_bias.to(down_bias.dtype) if needs_down_bias else None
                d_down, d_gamma, d_beta = unfolded(g, d_bias, down, norm_weight, norm_bias)
                if needs_h:
                    d_h = _input_gradient(
                        flat, d_o, d_u, _cast(down, plan.dtype), h, norm_weight, normal[1:], plan
                    )
        d_h = d_h.view(h.shape).to(h.dtype) if d_h is not None else None
        d_residual = grad.to(ctx.residual_dtype) if needs_residual else None
        d_down, d_gamma, d_beta = (
            d if needed else None
            for d, needed in ((d_down, needs_down), (d_gamma, needs_gamma), (d_beta, needs_beta))
        )
        return None, d_h, d_residual, d_down, d_up, d_down_bias, d_up_bias, d_gamma, d_beta, d_scale


def _cast(t: Tensor, dtype: torch.dtype) -> Tensor:
    """``t.to(dtype)`` without asking torch where there is nothing to do; a layer asks twenty times."""
    return t if t.dtype == dtype else t.to(dtype)


def _norm_arguments(
    h: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(h [T, D], weight, bias) in types for which torch's layer norm rounds neither its statistics nor its weight."""
    flat = as_rows(h)
    if (
        flat.device.type == "cpu"
    ):  # the weight's type is that of the statistics; without one a slower loop runs
        dtype = wide(flat.dtype)
        weight = torch.ones(flat.shape[1], dtype=dtype) if weight is None else weight.to(dtype)
        return flat, weight, None if bias is None else bias.to(dtype)
    dtype = flat.dtype
    for t in (weight, bias):
        dtype = dtype if t is None else torch.promote_types(dtype, t.dtype)
    return (
        flat.to(dtype),
        None if weight is None else weight.to(dtype),
        None if bias is None else bias.to(dtype),
    )


def _input(h: Tensor, weight: Tensor | None, bias: Tensor | None, plan: _Plan) -> tuple[Tensor, ...]:
    """Z [T, D] in the type of the products, and of a norm the mean and 1 / deviation of each row."""
    if plan.norm_eps is None:
        return (as_rows(h).to(plan.dtype),)
    flat, weight, bias = _norm_arguments(h, weight, bias)
    z, mean, rstd = torch.native_layer_norm(flat, flat.shape[1:], weight, bias, plan.norm_eps)
    return _cast(z, plan.dtype), mean, rstd


def _input_gradient(
    grad: Tensor,
    d_o: Tensor,
    d_u: Tensor,
    down: Tensor,
    h: Tensor,
    norm_weight: Tensor | None,
    statistics: tuple[Tensor, ...],
    plan: _Plan,
) -> Tensor:  # (T, D)
    """dH. `grad` is dO as it came, `d_o` in the type of the products; they are one where no type differs."""
    if plan.norm_eps is None and plan.own and d_o is grad:
        return torch.addmm(d_o, d_u, down)
    d_h = d_u @ down
    if plan.norm_eps is not None:
        flat, weight, _ = _norm_arguments(h, norm_weight, None)
        d_h, _, _ = torch.ops.aten.native_layer_norm_backward(
            d_h.to(flat.dtype), flat, flat.shape[1:], *statistics, weight, None, (True, False, False)
        )
    if not plan.own:
        return d_h
    return d_h.add_(grad) if d_h.dtype == grad.dtype else d_h + grad


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right. At a result of 8 columns CPU libraries are three times slower than at one of 8 rows, at 16 not."""
    return left @ right if right.shape[1] >= 16 else (right.t() @ left.t()).t().contiguous()


def _mask(u: Tensor, plan: _Plan) -> Tensor | None:  # (T, m)
    """Zeros where an entry is dropped, 1 / kept fraction elsewhere."""
    if plan.rate == 0:
        return None
    return keep_mask(u, plan.rate, plan.seed).div_(kept_fraction(plan.rate))


def _activated(u: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return F.relu(u)
    if activation == "silu":
        return F.silu(u)
    return F.gelu(u, approximate="tanh" if activation == "gelu_tanh" else "none")


def _activation_gradient(d_v: Tensor, u: Tensor, plan: _Plan) -> Tensor:
    if plan.activation == "relu":
        return torch.ops.aten.threshold_backward(d_v, u, 0)
    if plan.activation == "silu":
        return torch.ops.aten.silu_backward(d_v, u)
    return torch.ops.aten.gelu_backward(
        d_v, u, approximate="tanh" if plan.activation == "gelu_tanh" else "none"
    )


def _hidden(u: Tensor, mask: Tensor | None, plan: _Plan) -> Tensor:  # (T, m)
    v = _activated(u, plan.activation)
    return v if mask is None else v.mul_(mask)


def _expanded(
    h: Tensor,
    residual: Tensor | None,
    v: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    scale: Tensor | None,
    plan: _Plan,
) -> Tensor:  # (..., D)
    """r + s (v^T Wu^T + bu) in one new tensor, which is no view: a model may change it in place."""
    # a learned s moves into the thin map: no number is read from a device
    weight = _cast(up if scale is None else up * scale, plan.dtype).t()
    bias = None if up_bias is None else _cast(up_bias if scale is None else up_bias * scale, plan.dtype)
    dtype = plan.dtype if residual is None else torch.promote_types(plan.dtype, residual.dtype)
    o = h.new_empty(h.shape, dtype=dtype)
    flat = o.view(-1, o.shape[-1])
    if residual is not None and dtype == plan.dtype:
        if bias is None:
            torch.addmm(as_rows(residual).to(dtype), v, weight, alpha=plan.scale, out=flat)
        else:
            torch.add(residual, bias, alpha=plan.scale, out=o)
            flat.addmm_(v, weight, alpha=plan.scale)
        return o
    branch = flat if residual is None else flat.new_empty(flat.shape, dtype=plan.dtype)
    if bias is None:
        # beta = 0: `branch` is only written, so its uninitialised memory is never read
        torch.addmm(branch, v, weight, beta=0, alpha=plan.scale, out=branch)
    else:
        torch.addmm(bias * plan.scale, v, weight, alpha=plan.scale, out=branch)
    return o if residual is None else torch.add(residual, branch.view(o.shape), out=o)
