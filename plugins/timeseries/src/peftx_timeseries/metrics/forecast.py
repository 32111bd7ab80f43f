"""Errors of forecasts over all windows, rows and channels of a split, each observed value with the same weight.

    mse, mae                        of standardised values, as TSLib has them
    mse_original, mae_original      of the values in their own units; of several channels with different units a mean
                                    of unlike things, but the same for every method
    pinball                         mean over quantiles q of max(q e, (q - 1) e), e = y - y_q
    crps                            2 * pinball: the continuous ranked probability score, as far as these quantiles tell
    coverage                        share of values between the outermost quantiles, 0 to 1
    width                           mean distance of the outermost quantiles

Sums are kept in float64, so that no batch size changes a figure; missing values do not count. `n` is the number of
windows of one channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["ForecastMeter", "pinball_loss", "squared_loss"]


def squared_loss(forecast: Tensor, target: Tensor, power: int = 2) -> Tensor:
    """Mean of |y - f|^power over the observed values of target (NaN: missing); both (B, H)."""
    seen = torch.isfinite(target)
    error = (torch.where(seen, target, 0.0) - forecast) * seen
    error = error.square() if power == 2 else error.abs()
    return error.sum() / seen.sum().clamp(min=1)


def pinball_loss(forecast: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """Mean pinball loss over observed values and quantiles; forecast (B, H, Q), target (B, H), quantiles (Q,).

    R. Koenker, G. Bassett, "Regression Quantiles", Econometrica 1978.
    """
    seen = torch.isfinite(target)[..., None]
    error = torch.where(seen, target[..., None], 0.0) - forecast
    loss = torch.maximum(quantiles * error, (quantiles - 1) * error) * seen
    return loss.sum() / (seen.sum().clamp(min=1) * len(quantiles))


class ForecastMeter:
    """Adds up the errors of batches, which hold ``y`` (B, H), NaN where missing, and ``std`` (B,), a sample's unit."""

    def __init__(self, quantiles: Sequence[float] = ()) -> None:
        self.quantiles = tuple(quantiles)
        self._sums: dict[str, float] = {}
        self._observed = self._samples = 0
        self._by_row: Tensor | None = None
        self._seen_by_row: Tensor | None = None

    def update(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch of forecasts: (B, H), or (B, H, Q) in the order of the quantiles."""
        target = batch["y"].double()
        seen = torch.isfinite(target)
        target = torch.where(seen, target, 0.0)
        values = outputs.double()
        spread = values.dim() == 3
        point = values[..., self.quantiles.index(0.5)] if spread else values
        error = (point - target) * seen
        unit = batch["std"].double()[:, None]
        squared = error.square()
        self._add("mse", squared)
        self._add("mae", error.abs())
        self._add("mse_original", (error * unit).square())
        self._add("mae_original", (error * unit).abs())
        if spread:
            levels = torch.tensor(self.quantiles, dtype=torch.float64, device=values.device)
            gap = target[..., None] - values
            pinball = torch.maximum(levels * gap, (levels - 1) * gap).mean(-1) * seen
            self._add("pinball", pinball)
            self._add("crps", 2 * pinball)
            inside = (values[..., 0] <= target) & (target <= values[..., -1]) & seen
            self._add("coverage", inside.double())
            self._add("width", (values[..., -1] - values[..., 0]) * seen)
        rows, counts = squared.sum(0).cpu(), seen.double().sum(0).cpu()
        self._by_row = rows if self._by_row is None else self._by_row + rows
        self._seen_by_row = counts if self._seen_by_row is None else self._seen_by_row + counts
        self._observed += int(seen.sum())
        self._samples += len(target)

    def compute(self) -> dict[str, float]:
        """The metrics, and `n`, the number of samples; NaN where not a single value was observed."""
        count = self._observed or float("nan")
        return {name: total / count for name, total in self._sums.items()} | {"n": self._samples}

    def details(self) -> dict[str, Any]:
        """The mean squared error of each row of the forecast, first to last; None where nothing was observed."""
        if self._by_row is None or self._seen_by_row is None:
            return {}
        rows = zip(self._by_row.tolist(), self._seen_by_row.tolist(), strict=True)
        return {"mse_by_row": [total / count if count else None for total, count in rows]}

    def _add(self, name: str, values: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(values.sum())
