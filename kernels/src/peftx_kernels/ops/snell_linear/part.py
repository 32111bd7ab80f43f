"""What one kernelised sparse map is: where it lies, its factors, and how it is thinned."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["MODES", "SnellPart", "check_parts"]

MODES = {
    "official": "S = V K with K = |V| where |V| > t, else 0; K constant in the backward",
    "paper": "S = V K with K = max(|V| - t, 0) and t the ceil(s N)-th smallest |V|; K constant in the backward",
    "soft": "S = sign(V) max(|V| - t, 0)",
    "dense": "S = V; no threshold",
}


class SnellPart(NamedTuple):
    """Rows start..stop of a weight (out, in) get S^T, with S made from thin factors.

    V[i, j] = scale (||a[0, i] - b[0, j]|| - ||a[1, i] - b[1, j]||), Euclidean lengths; t is the ``sparsity``-quantile
    of |V| over the whole map, and ``mode`` says what becomes of V and t (``MODES``). With ``mix``, that is alpha, gamma
    and beta, V + alpha softmax(V / gamma) + beta takes V's place, the softmax over the outputs j.
    """

    start: int
    stop: int
    a: Tensor  # (H, in, d): H groups, whose distances are added with alternating signs
    b: Tensor  # (H, stop - start, d)
    sparsity: float | Tensor = 0.9  # a tensor only where a compiler traces
    mode: str = "official"
    mix: tuple[Tensor, Tensor, Tensor] | None = None  # one value each
    scale: float = 0.1


def check_parts(parts: tuple[SnellPart, ...], out: int, width: int) -> None:
    """Raise ValueError where a part does not fit a weight (out, width) or is no kernel."""
    for part in parts:
        a, b = part.a, part.b
        fits = a.dim() == b.dim() == 3 and a.shape[0] == b.shape[0] and a.shape[2] == b.shape[2]
        if not fits or a.shape[1] != width or not 0 <= part.start < part.stop <= out:
            fits = False
        if not fits or b.shape[1] != part.stop - part.start:
            raise ValueError(
                f"rows {part.start}:{part.stop} of a weight {(out, width)} cannot take a {tuple(a.shape)} and "
                f"b {tuple(b.shape)}; expected a (H, {width}, d) and b (H, {part.stop - part.start}, d)"
            )
        if part.mode not in MODES:
            raise ValueError(f"mode is {part.mode!r}; expected one of {', '.join(MODES)}")
        if not isinstance(part.sparsity, Tensor) and not 0.0 <= part.sparsity <= 1.0:
            raise ValueError(f"sparsity is {part.sparsity}; expected 0 to 1")
        if part.mix is not None and any(t.numel() != 1 for t in part.mix):
            raise ValueError("mix holds alpha, gamma and beta with one value each")
