"""LoRA with a trained length of every output row (DoRA, Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.ops.dora_linear.norm import row_sq
from peftx_kernels.table import implementation, prepare

__all__ = ["dora_linear", "dora_norm", "row_sq"]

prepare("dora_linear", "dora_norm")


def dora_linear(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    a: Tensor,  # (R, in)
    b: Tensor,  # (out, R)
    magnitude: Tensor,  # (out,)
    scale: float,
    *,
    weight_sq: Tensor | None = None,  # (out,), row_sq(weight)
    norm: Tensor | None = None,  # (out,), dora_norm of these tensors
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:  # (..., out)
    """Return y = g (x W^T + scale drop(x) A^T B^T) + bias with g = magnitude / ||W + scale B A|| per row.

    The norm is a constant for the backward pass (section 4.3 of the paper). With dropout the base term sees x and the
    correction drop(x), as in the ``peft`` package. g and the norm are fp32 (float64 for float64 weights) whatever x is.
    b = 0 and magnitude = dora_norm of that b give exactly ``F.linear(x, weight, bias)``. Kept for the backward pass:
    what ``lora_linear`` keeps, and y itself, which the next layer mostly keeps anyway. dtypes, tolerances and
    the other arguments as in ``lora_linear``.

    Args:
        weight_sq: ``row_sq(weight)``, worth keeping beside a frozen weight; computed here when None.
        norm: ``dora_norm(weight_sq, weight, a, b, scale)``, worth keeping from one optimizer step to the next;
            computed here when None. The reference computes it in any case.

    Raises:
        ValueError: dropout out of range, or shapes that do not fit.
    """
    return implementation("dora_linear")(
        x,
        weight,
        bias,
        a,
        b,
        magnitude,
        scale,
        weight_sq=weight_sq,
        norm=norm,
        dropout=dropout,
        training=training,
        source=source,
    )


def dora_norm(
    weight_sq: Tensor,  # (out,), row_sq(weight)
    weight: Tensor,  # (out, in)
    a: Tensor,  # (R, in)
    b: Tensor,  # (out, R)
    scale: float,
) -> Tensor:  # (out,)
    """Return n = ||W + scale B A|| per row, in fp32 (float64 for float64 weights), outside of autograd.

    n^2 = ||W||^2 + 2 scale rowsum(B * W A^T) + scale^2 rowsum(B (A A^T) * B): thin products alone (Zelenin and
    Zhuravlyova, 2026, arXiv 2603.22276). Relative error about 1e-6 in fp32, also in rows that the correction all but
    cancels; NaN in gives NaN out; an all-zero row gives 1e-12, to be divided by.
    """
    norm: Tensor = implementation("dora_norm")(weight_sq, weight, a, b, scale)
    return norm
