"""A frozen linear map plus low-rank corrections (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.table import implementation, prepare

__all__ = ["Part", "lora_linear", "lora_linear_slices"]

Part = tuple[int, int, Tensor, Tensor, float]  # start, stop, a (R, in), b (stop - start, R), scale

prepare("lora_linear", "lora_linear_slices")


def lora_linear(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    a: Tensor,  # (R, in)
    b: Tensor,  # (out, R)
    scale: float,
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:  # (..., out)
    """Return y = x W^T + bias + scale drop(x) A^T B^T.

    Every input that requires grad gets its gradient; nothing is computed or kept for the others. Kept for the backward
    pass: x (not with ``source``, which rebuilds it) and x A^T; of dropout only a seed. dtype: as ``F.linear``, autocast
    included; a and b may be wider than x (fp32 masters of a bf16 model), the products run in x's dtype. Relative
    (Frobenius) error against float64: fp32 1e-5, bf16 5e-3, fp16 1e-3; gradients twice that. b = 0 gives exactly
    ``F.linear(x, weight, bias)``.

    Args:
        dropout: probability in [0, 1) of dropping an entry of the adapter's input; only while ``training``.
        source: ``activation_source(x)``, to recompute x in the backward pass.

    Raises:
        ValueError: dropout out of range, or shapes that do not fit.
    """
    return implementation("lora_linear")(
        x, weight, bias, a, b, scale, dropout=dropout, training=training, source=source
    )


def lora_linear_slices(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    parts: Sequence[Part],
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:  # (..., out)
    """Return ``lora_linear`` with one correction per row range of W: the q, k, v slices of a fused projection.

    y[..., start:stop] += scale drop(x) A^T B^T for every part (start, stop, a, b, scale). Ranges may leave rows out,
    differ in rank, and overlap (then the corrections add up: several adapters on one map). One product with W, one with
    all A stacked, one per part with its B; dropout, where on, is one mask for all parts. Otherwise as ``lora_linear``.

    Raises:
        ValueError: dropout out of range, or a part that does not fit its rows.
    """
    return implementation("lora_linear_slices")(
        x, weight, bias, parts, dropout=dropout, training=training, source=source
    )
