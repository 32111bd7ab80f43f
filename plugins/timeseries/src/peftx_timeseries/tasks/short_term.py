"""`timeseries.short_term`: one forecast of each series, of its last H rows, as in the M competitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftx.errors import DataError
from peftx.tasks import Batch
from peftx_timeseries.config.short_term import ShortTermConfig
from peftx_timeseries.metrics.forecast import squared_loss
from peftx_timeseries.metrics.short_term import ShortTermMeter, smape_loss
from peftx_timeseries.series.seasonality import naive2, naive_scale, seasonal_naive
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.series.windows import Windows
from peftx_timeseries.tasks.covariates import told
from peftx_timeseries.tasks.drawing import Draws, SeriesBatches
from peftx_timeseries.tasks.forecasting import Forecasting, series_of
from peftx_timeseries.tasks.recipes import short_term_recipe
from peftx_timeseries.tasks.shapes import Shapes

__all__ = ["ShortTerm"]

Indices = NDArray[np.int64]
#: What a held-out batch says of a series beside its window.
_FORECASTS = {"naive2": naive2, "seasonal_naive": seasonal_naive}


class ShortTerm(Forecasting):
    """Forecasts of many series, each of the last H rows of a split; the symmetric percentage error ranks.

    It is the only error of the competitions that every series has and that a model can be trained by: MASE needs a
    series that changes, OWA is relative to another forecast.

    Training windows are random ones of each series, drawn anew each epoch (TSLib's M4 protocol), or all of them. Their
    targets lie in the training rows, and those that reach beyond are cut off there; histories shorter than the input
    are padded in front with missing values. Validation is the last H rows before the test's.

    Batches hold ``mean`` and ``std`` (B,), by which a sample is standardised, besides ``x``, ``y`` and ``seen`` of
    `Forecasting`; when not training also what needs a series' whole history, all rows before those to be forecast:
    ``scale`` (B,), the in-sample error of the seasonal naive forecast, and the forecasts ``naive2`` and
    ``seasonal_naive`` (B, H), standardised.
    """

    primary: ClassVar[str] = "smape"
    units: ClassVar[Mapping[str, str]] = {"smape": "%"}
    patching: ClassVar[tuple[int, int]] = (1, 1)
    #: forecasts from the whole history that a row to compare with may read
    references: ClassVar[tuple[str, ...]] = tuple(_FORECASTS)

    config: ShortTermConfig  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._histories: dict[str, dict[str, Tensor]] = {}
        self._drawn: Draws | None = None
        self._standard: dict[str, tuple[Tensor, Tensor]] = {}

    def make_shapes(self) -> Shapes:
        """The horizon is that of the data set unless given, and the input twice as long unless given.

        Raises:
            DataError: the data set has no horizon and none is given.
        """
        horizon = self.config.horizon or self.data.card.get("horizon")
        if not horizon:
            raise DataError(
                f"{self.data.name} does not say how many rows are to be forecast: give --task.horizon (and split the "
                "data there by --data.horizon, where the data set has that option)"
            )
        length = self.config.input_length or 2 * int(horizon)
        return Shapes(length, int(horizon), int(self.data.card.get("period", 1)))

    def windows(self, split: str, *, stride: int | None = None) -> Windows:
        """All windows of the training split, `stride` rows apart (default: the configuration's), or the one of each
        series of another.

        Raises:
            DataError: no series is long enough, or one has fewer rows in the split than the horizon.
        """
        step = (stride or self.config.stride) if split == "train" else 1
        if (split, step) not in self._windows:
            self._windows[split, step] = self.cut(split, step)
        return self._windows[split, step]

    def cut(self, split: str, stride: int) -> Windows:
        """As `Forecasting.cut`."""
        held, horizon = series_of(self.data.splits[split]), self.shapes.horizon
        if split == "train":
            last = None if self.config.recent is None else max(1, round(self.config.recent * horizon))
            rows = [
                one if last is None else one.rows(max(one.begin, one.end - last), one.end)
                for one in held.series
            ]
        else:
            short = next((one for one in held.series if len(one) < horizon), None)
            if short is not None:
                raise DataError(
                    f"{short.name} has {len(short)} rows in {split}, and {horizon} are to be forecast: split the data "
                    f"at the horizon (--data.horizon {horizon}), or take a shorter --task.horizon"
                )
            rows = [one.rows(one.end - horizon, one.end) for one in held.series]
        return Windows(
            SeriesSplit(rows),
            self.shapes.length,
            horizon,
            self.statistics,
            stride=stride,
            pad=self.config.short_series == "pad",
            partial=split == "train",
            what=split,
        )

    def samples(self, split: str) -> int:
        """Series times channels, in training times the windows that are drawn of each; all windows with those."""
        windows = self.windows(split)
        if split != "train" or self.config.windows == "all":
            return len(windows)
        return len(self._draws())

    def prepare(self, splits: Sequence[str]) -> None:
        """Cut the windows of the splits, and say how many there are.

        Raises:
            DataError: a split has no window, or fewer rows than the horizon.
        """
        said = []
        for split in splits:
            windows = self.windows(split)
            series = len(np.unique(windows.owner))
            if split == "train" and self.config.windows == "random":
                drawn = "a random one" if self.config.draws == 1 else f"{self.config.draws} random ones"
                said.append(f"{drawn} of each of {series:,} series an epoch, of {windows.windows:,} in train")
            else:
                said.append(f"{windows.windows:,} {split}")
        self.notes.append(f"windows of {self.shapes.length} + {self.shapes.horizon} rows: {', '.join(said)}")
        self.notes += [
            f"{self.windows(split).idle:,} of {len(self.data.splits[split]):,} series have no window in {split}: they "
            "are too short"
            for split in splits
            if self.windows(split).idle
        ]
        covariates = told(self.shapes, self.data.card)
        self.notes += [covariates] if covariates else []

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> SeriesBatches:
        """Batches of windows; when not training with what `history` says of each, and of a training split the last
        windows of each series."""
        windows = self.windows(split)
        draws = self._draws() if split == "train" and self.config.windows == "random" else None
        count = len(windows) if draws is None else len(draws)
        if train:
            order = (
                partial(_shuffled, count, generator) if draws is None else partial(draws.random, generator)
            )
            return SeriesBatches(windows, order, count, batch_size, *self._levels(split))
        samples = np.arange(count) if draws is None else draws.last()
        more = self.history(split, samples)
        return SeriesBatches(windows, lambda: samples, count, batch_size, *self._levels(split), more)

    def history(self, split: str, samples: Indices) -> dict[str, Tensor]:
        """``scale`` (N,) and the forecasts ``naive2`` and ``seasonal_naive`` (N, H), standardised, of the samples of a
        pass that does not train; made once."""
        if split not in self._histories:
            held, windows = series_of(self.data.splits[split]), self.windows(split)
            window, channel = np.divmod(samples, len(windows.channels))
            made = [
                self._told(held.series[windows.owner[at]], int(windows.start[at]), int(column))
                for at, column in zip(window, channel, strict=True)
            ]
            self._histories[split] = {
                name: torch.from_numpy(np.stack([one[name] for one in made])).float() for name in made[0]
            }
        return self._histories[split]

    def ahead(self, one: Series, wanted: int | None = None) -> dict[str, Tensor]:
        """``naive2`` and ``seasonal_naive`` (channels, H) of what comes behind `one.end`, standardised."""
        made = [self._told(one, one.end, column) for column in range(len(one.channels))]
        return {
            name: torch.from_numpy(np.stack([told[name] for told in made])).float()
            for name in self.references
        }

    def point_loss(self, forecast: Tensor, batch: Batch) -> Tensor:
        """Return the symmetric percentage error in the units of the series, or the mean squared or absolute error of
        standardised values."""
        if self.config.loss != "smape" or self.config.quantiles:
            return squared_loss(forecast, batch["y"], 2 if self.config.loss == "mse" else 1)
        mean, std = batch["mean"][:, None], batch["std"][:, None]
        return smape_loss(forecast * std + mean, batch["y"] * std + mean)

    def meter(self) -> ShortTermMeter:  # type: ignore[override]
        """Return a fresh sum of errors."""
        return ShortTermMeter(self.config.quantiles)

    def recipe(self, method: str) -> dict[str, Any]:
        """Return the settings of `peftx_timeseries.tasks.recipes`."""
        return short_term_recipe(method)

    def _draws(self) -> Draws:
        if self._drawn is None:
            ends = np.array([one.end for one in series_of(self.data.splits["train"]).series])
            self._drawn = Draws(self.windows("train"), ends, self.config.stride, self.config.draws)
        return self._drawn

    def _levels(self, split: str) -> tuple[Tensor, Tensor]:  # (series, channels) each
        if split not in self._standard:
            held = [self.statistics(one) for one in series_of(self.data.splits[split]).series]
            mean, std = (torch.from_numpy(np.stack(values)).float() for values in zip(*held, strict=True))
            self._standard[split] = (mean, std)
        return self._standard[split]

    def _told(self, one: Series, start: int, channel: int) -> dict[str, NDArray[np.float64]]:
        """What the rows before `start` say of a channel."""
        past, period = one.values[:start, channel], self.shapes.period
        mean, std = (values[channel] for values in self.statistics(one))
        found = {
            name: (made(past, period, self.shapes.horizon) - mean) / std for name, made in _FORECASTS.items()
        }
        return found | {"scale": np.asarray(naive_scale(past, period))}


def _shuffled(count: int, generator: torch.Generator | None) -> Indices:
    order: Indices = torch.randperm(count, generator=generator).numpy()
    return order
