"""One frozen linear map, many LoRA adapters, each for its own rows of the batch (Punica, arXiv 2310.18547)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.ops.grouped_lora.groups import Groups, group_rows
from peftx_kernels.table import implementation, prepare

__all__ = ["GroupPart", "Groups", "group_rows", "grouped_lora"]

GroupPart = tuple[
    int, int, int, Tensor, Tensor, float
]  # group, start, stop, a (R, in), b (stop - start, R), scale

prepare("grouped_lora")


def grouped_lora(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    groups: Groups,
    parts: Sequence[GroupPart],
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:  # (..., out)
    """Return y = x W^T + bias, and for every row t of x and every part (group, start, stop, a, b, s) of t's group

    y[t, start:stop] += s drop(x)[t] A^T B^T.

    A group is an adapter: usually one part that covers all of W (0, out), or one for each adapted slice of a fused
    projection. Groups may have any number of parts, of any rank, also none; overlapping parts add up. Rows of group -1
    are exactly those of ``F.linear(x, weight, bias)``, and so are columns that no part covers.

    There is one product with W for all rows, forward and backward, however many groups there are. Every input that
    requires grad gets its gradient (zero where a group has no rows); nothing is computed or kept for the others. Kept
    for the backward pass: x (not with ``source``, which rebuilds it) and for each row x A^T of its own group; of
    dropout only a seed. What is known of the groups is in `groups` and shared by all layers.

    dtype: as ``F.linear``, autocast included; a and b may be wider than x (fp32 masters of a bf16 model), the products
    run in x's dtype and sum in fp32. Relative (Frobenius) error against float64: fp32 1e-5, bf16 5e-3, fp16 1e-3;
    gradients twice that. Deterministic.

    The segmented products of the kernels are those of Punica's SGMV and SGLang's chunked form of it; the backward pass
    sums the gradients of each adapter over its own rows, as in LoRAFusion (arXiv 2510.00206).

    Args:
        groups: of the rows of x, flattened: ``group_rows(ids, n).spread(T)`` for x (B, T, in).
        dropout: probability in [0, 1) of dropping an entry of the adapters' input; only while ``training``. One mask
            over x, whatever the groups.
        source: ``activation_source(x)``, to recompute x in the backward pass.

    Raises:
        ValueError: dropout out of range, groups of another number of rows than x, or a part that does not fit.
    """
    return implementation("grouped_lora")(
        x, weight, bias, groups, parts, dropout=dropout, training=training, source=source
    )
