"""Errors of the M competitions: one forecast of each series, every series with the same weight.

    smape    mean over series of 1/H sum_h 200 |y - f| / (|y| + |f|)             percent, 0 to 200
    mase     mean over series of 1/H sum_h |y - f| / s                           s: mean of |x_t - x_{t-m}| in sample
    owa      (smape / smape of naive2 + mase / mase of naive2) / 2               1: as good as naive2

All are taken in the units of the series. In sample are all rows before the first to be forecast. A row of 0 that is
forecast as 0 has no error. A series whose s is 0 (it never changed, or is not longer than a season) has no MASE: it
is left out of `mase`, and so out of the second half of `owa`, and counted in the details. Missing values do not count.

S. Makridakis, E. Spiliotis, V. Assimakopoulos, International Journal of Forecasting 36 (2020); the scaled error is that
of R. J. Hyndman, A. B. Koehler, International Journal of Forecasting 22 (2006). M3 had |y| + |f| as y + f, which is the
same for positive series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from peftx_timeseries.metrics.forecast import ForecastMeter

__all__ = ["ShortTermMeter", "relative_errors", "smape_loss"]


def relative_errors(forecast: Tensor, target: Tensor) -> Tensor:
    """200 |y - f| / (|y| + |f|) in percent, element by element, where 0 of 0 is 0. NaN where the target is missing."""
    total = target.abs() + forecast.abs()
    return 200 * (target - forecast).abs() / torch.where(total == 0, 1.0, total)


def smape_loss(forecast: Tensor, target: Tensor) -> Tensor:
    """The mean over samples of each one's sMAPE over its observed rows; both (B, H), in the units of the series."""
    seen = torch.isfinite(target)
    errors = relative_errors(forecast, torch.where(seen, target, 0.0)) * seen
    return (errors.sum(1) / seen.sum(1).clamp(min=1)).mean()


class ShortTermMeter:
    """Adds up the errors of batches.

    A batch holds ``y`` (B, H), standardised, NaN where missing; ``mean`` and ``std`` (B,), what it was standardised by;
    ``scale`` (B,), the s of the equations; and ``naive2`` (B, H), standardised like the outputs. The figures of
    `ForecastMeter` come along.
    """

    def __init__(self, quantiles: Sequence[float] = ()) -> None:
        self.quantiles = tuple(quantiles)
        self._windows = ForecastMeter(quantiles)
        self._smape: list[Tensor] = []
        self._mase: list[Tensor] = []
        self._by_row: Tensor | None = None
        self._seen_by_row: Tensor | None = None

    def update(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch of forecasts: (B, H), or (B, H, Q) in the order of the quantiles."""
        self._windows.update(outputs, batch)
        mean, std = (batch[name].double()[:, None] for name in ("mean", "std"))
        point = outputs[..., self.quantiles.index(0.5)] if outputs.dim() == 3 else outputs
        seen = torch.isfinite(batch["y"])
        target = torch.where(seen, batch["y"].double() * std + mean, 0.0)
        count = seen.sum(1)
        scale = batch["scale"].double()
        smape: list[Tensor] = []
        mase: list[Tensor] = []
        for values in (point, batch["naive2"]):
            forecast = values.double() * std + mean
            errors = relative_errors(forecast, target) * seen
            if not smape:
                self._add_rows(errors.sum(0).cpu(), seen.double().sum(0).cpu())
            smape.append(errors.sum(1) / count)
            mase.append(((forecast - target).abs() * seen).sum(1) / count / scale)
        # nothing observed: 0 / 0; nothing to scale by: x / 0
        self._smape.append(torch.stack(smape, 1).cpu())
        self._mase.append(torch.where(scale[:, None] > 0, torch.stack(mase, 1), torch.nan).cpu())

    def compute(self) -> dict[str, float]:
        """The metrics, and `n`, the number of series; NaN for what no series has."""
        smape, other_smape = _means(self._smape)
        mase, other_mase = _means(self._mase)
        found = {
            "smape": smape,
            "mase": mase,
            "owa": (_ratio(smape, other_smape) + _ratio(mase, other_mase)) / 2,
        }
        return found | self._windows.compute()

    def details(self) -> dict[str, Any]:
        """`smape_by_row`, first row of the forecast to last, `naive2`, its own figures, `unscaled`, how many series
        have no MASE, and what `ForecastMeter` has."""
        if self._by_row is None or self._seen_by_row is None:
            return {}
        rows = zip(self._by_row.tolist(), self._seen_by_row.tolist(), strict=True)
        reference = {"smape": _means(self._smape)[1], "mase": _means(self._mase)[1]}
        return {
            "smape_by_row": [total / count if count else None for total, count in rows],
            "naive2": {name: value if value == value else None for name, value in reference.items()},
            "unscaled": sum(int(part[:, 0].isnan().sum()) for part in self._mase),
            **self._windows.details(),
        }

    def _add_rows(self, errors: Tensor, counts: Tensor) -> None:
        self._by_row = errors if self._by_row is None else self._by_row + errors
        self._seen_by_row = counts if self._seen_by_row is None else self._seen_by_row + counts


def _means(parts: Sequence[Tensor]) -> tuple[float, float]:
    """The mean over all samples with a figure, of the forecast and of Naive2; NaN without any."""
    if not parts:
        return torch.nan, torch.nan
    whole = torch.cat(list(parts))
    held = whole[~whole.isnan().any(1)]
    if not len(held):
        return torch.nan, torch.nan
    own, reference = held.mean(0).tolist()
    return float(own), float(reference)


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference else torch.nan
