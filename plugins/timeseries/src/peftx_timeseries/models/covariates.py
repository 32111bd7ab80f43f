"""What covariates add to a forecast, linearly: the part of the closed form, and of a forecaster's head.

    y_h += sum_c V_{c,h} k_c(t + h)  +  sum_{c,r} U_{h,c,r} c(t - r)            h = 0 .. H - 1, r = 1 .. K

V weighs each known covariate at the row that is forecast, one weight for each row: what a holiday does to its own day.
U weighs all covariates over the last K rows of the input: what they did to the values that the forecast starts from,
and what follows from them later. An effect of a known covariate on other rows than its own needs a column of its own,
the covariate moved by so many rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CovariateMap", "both"]


def both(known: Tensor | None, past: Tensor | None, length: int) -> Tensor:
    """The rows of the input of all covariates, (B, C, L): known ones first, without what comes after the input."""
    held = [part[..., :length] for part in (known, past) if part is not None]
    return torch.cat(held, 1)


class CovariateMap(nn.Module):
    """Known (B, C_k, L + H) and past covariates (B, C_p, L) to ``(B, H)``. All weights begin at zero.

    Its parameters are ``future`` (C_k, H), V, and ``history`` (H, (C_k + C_p) K), U; the columns of U go by covariate,
    known ones first, then by row. They are C_k H + (C_k + C_p) K H in number.

    Args:
        known, past: how many covariates there are, C_k and C_p.
        length: rows of the input, L.
        horizon: rows of the forecast, H.
        rows: rows of the input that are weighed, K, from the last one back.
    """

    def __init__(self, known: int, past: int, length: int, horizon: int, rows: int = 0) -> None:
        super().__init__()
        self.known, self.past, self.length, self.rows = known, past, length, rows
        width = (known + past) * rows
        self.future = nn.Parameter(torch.zeros(known, horizon)) if known else None
        self.history = nn.Parameter(torch.zeros(horizon, width)) if width else None

    def forward(self, known: Tensor | None, past: Tensor | None) -> Tensor:  # (B, H)
        """Return what is to be added to the forecast."""
        total: Tensor | None = None
        if self.future is not None and known is not None:
            total = torch.einsum("bch,ch->bh", known[..., self.length :], self.future)
        if self.history is not None:
            rows = both(known, past, self.length)[..., self.length - self.rows :]
            line = nn.functional.linear(rows.flatten(1), self.history)
            total = line if total is None else total + line
        assert total is not None, "a map of no covariates"
        return total
