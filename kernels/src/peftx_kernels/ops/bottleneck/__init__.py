"""A residual bottleneck adapter: norm, down, activation, up, scale, add (Houlsby et al. 2019, arXiv 1902.00751)."""

from __future__ import annotations

from torch import Tensor

from peftx_kernels.table import implementation, prepare

__all__ = ["bottleneck"]

prepare("bottleneck")


def bottleneck(
    h: Tensor,  # (..., D)
    down: Tensor,  # (m, D)
    up: Tensor,  # (D, m)
    *,
    down_bias: Tensor | None = None,  # (m,)
    up_bias: Tensor | None = None,  # (D,)
    residual: Tensor | None = None,  # (..., D)
    scale: float | Tensor = 1.0,
    activation: str = "gelu",
    norm_weight: Tensor | None = None,  # (D,)
    norm_bias: Tensor | None = None,  # (D,)
    norm_eps: float | None = None,
    dropout: float = 0.0,
    training: bool = False,
) -> Tensor:  # (..., D)
    """Return o = r + s (drop(f(LN(h) Wd^T + bd)) Wu^T + bu).

    The bottleneck of Houlsby et al., of AdaptFormer (arXiv 2205.13535: s = 0.1, r the block's sum, ReLU, no norm), of
    MoSA and of AdapterTune. Every input that requires grad gets its gradient; nothing is computed for the others.

    Kept for the backward pass: h and u = LN(h) Wd^T + bd [T, m], of a norm at most two numbers a row, of dropout only a
    seed. The products run in the type ``F.linear(h, ...)`` runs in, autocast included, the norm's statistics in fp32
    (float64 for float64); thin tensors may be wider than h (fp32 masters of a bf16 model). o has that type too, or r's
    where that is wider: a residual stream in fp32 stays in fp32. Relative (Frobenius) error against float64: fp32 1e-5,
    bf16 5e-3, fp16 1e-3; gradients twice that, except where a hidden value within rounding of 0 falls on the other side
    of ReLU's corner. Wu = bu = 0 gives exactly r.

    Args:
        residual: r; ``h`` itself where the adapter follows in sequence, which costs its gradient no pass of its own.
            None: nothing is added.
        scale: s, a number, or a tensor of one value, which may be learned.
        activation: f: relu, gelu (exact), gelu_tanh or silu.
        norm_eps: eps of the LayerNorm in front; None: no norm.
        norm_weight, norm_bias: of that norm; None: 1 and 0.
        dropout: probability in [0, 1) of dropping a hidden value; only while ``training``.

    Raises:
        ValueError: dropout out of range, an unknown activation, or shapes that do not fit.
    """
    return implementation("bottleneck")(
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
