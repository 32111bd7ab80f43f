"""A frozen linear map plus kernelised sparse updates (SNELL, arXiv 2411.01800; SNELLA, arXiv 2510.24037)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.ops.snell_linear.part import SnellPart
from peftx_kernels.table import implementation, prepare

__all__ = ["SnellPart", "snell_linear", "snell_update"]

prepare("snell_linear", "snell_update")


def snell_linear(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    parts: Sequence[SnellPart],
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:  # (..., out)
    """Return y = x W^T + bias + path(drop(x) S), with S made from thin factors for every row range of ``parts``.

    V = scale (D_0 - D_1), D_h[i, j] = ||a[h, i] - b[h, j]||_2; t the sparsity-quantile of |V|; S from V and t as the
    part's mode says (``SnellPart``). Ranges may leave rows out, and add up where they overlap. t and the factor K get
    no gradient; equal rows of a and b have distance 0 and gradient 0.

    Kept for the backward pass: x (not with ``source``, which rebuilds it), the factors and one t a map (the Triton
    kernels also a power of two, with ``mix`` two numbers a column); of dropout only seeds. No (out, in) tensor is kept;
    in flight are at most two in float32 besides a few blocks, or with the Triton kernels one in the product's type,
    beside sums of half a float32 one or four megabytes. Every input that requires grad gets its gradient.

    dtype: as ``F.linear``, autocast included; maps and thresholds are float32 (float64 for float64 x). Without dropout
    one product with W + S^T, formed in float32; in half precision, where W + S^T would round to W, and with dropout S
    has a product of its own (scaled by a power of two in float16).

    Args:
        dropout: probability in [0, 1) of dropping an entry of the updates' input; only while ``training``.
        drop_path: probability in [0, 1) of dropping a whole sample (first dimension of x); only while ``training``.
        source: ``activation_source(x)``, to recompute x in the backward pass.

    Raises:
        ValueError: a rate or a sparsity out of range, an unknown mode, or a part that does not fit its rows.
    """
    return implementation("snell_linear")(
        x, weight, bias, parts, dropout=dropout, drop_path=drop_path, training=training, source=source
    )


def snell_update(part: SnellPart) -> Tensor:  # (stop - start, in)
    """Return the update S^T of one part, dense and float32 (float64 for float64 factors); it keeps the factors and t.

    Raises:
        ValueError: a sparsity out of range, an unknown mode, or factors that do not fit each other.
    """
    return implementation("snell_update")(part)
