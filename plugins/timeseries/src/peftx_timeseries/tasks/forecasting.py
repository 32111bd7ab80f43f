"""`timeseries.forecasting`: the next H rows of a channel from the last L."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError
from peftx.tasks import Batch, ModelSource, Task
from peftx_timeseries.config.models import HostConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.metrics.forecast import ForecastMeter, pinball_loss, squared_loss
from peftx_timeseries.models.forecaster import Forecaster, patches_of
from peftx_timeseries.models.hosts import trunk_of
from peftx_timeseries.models.regression import start_linear
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.series.windows import Windows
from peftx_timeseries.tasks.backtest import backtest
from peftx_timeseries.tasks.covariates import ahead, chosen, told
from peftx_timeseries.tasks.intervals import calibration
from peftx_timeseries.tasks.picturing import pictures
from peftx_timeseries.tasks.predicting import SUFFIXES, forecasts
from peftx_timeseries.tasks.recipes import recipe
from peftx_timeseries.tasks.shapes import Shapes

__all__ = ["Forecasting", "WindowBatches", "filled", "series_of"]


class Forecasting(Task):
    """Forecasting by windows of one channel, standardised by the training rows; the mean squared error ranks.

    Batches are ``{"x": (B, L), "y": (B, H), "std": (B,)}`` float32, and ``seen`` (B, L) where a split has missing
    values: in ``x`` these are filled with the last value before them, in ``y`` they are NaN and count nowhere. With
    covariates there are ``known`` (B, C_k, L + H) and ``past`` (B, C_p, L) as well, see `Windows.covariates`.
    """

    primary: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    #: rows of a patch and between two, where the host's options leave them open
    patching: ClassVar[tuple[int, int]] = (16, 8)

    config: ForecastingConfig

    def __init__(
        self, config: ForecastingConfig, data: Dataset, model: ModelSource, ctx: DataContext
    ) -> None:
        super().__init__(config, data, model, ctx)
        self.shapes = self.make_shapes()
        self._windows: dict[tuple[str, int], Windows] = {}
        self._scaler: Scaler | None = None
        self._card: dict[str, Any] = {}

    def make_shapes(self) -> Shapes:
        """Rows of the input, of the forecast and of a season, as options and data say."""
        return Shapes(
            self.config.input_length,
            self.config.horizon,
            int(self.data.card.get("period", 1)),
            **chosen(self.config.covariates, self.data.card),
        )

    @property
    def scaler(self) -> Scaler | None:
        """The statistics of the training rows, of the card or of the training split; None where neither is here: a run
        on many series, without its data."""
        if self._scaler is None:
            stored, train = self.data.card.get("scaler"), self.data.splits["train"]
            if stored is not None:
                self._scaler = Scaler.from_dict(dict(stored))
            elif isinstance(train, SeriesSplit):
                self._scaler = train.scaler or Scaler.fit(train)
        return self._scaler

    def statistics(self, one: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation (M,) that a series is standardised by: of the scaling it brings, else the training's, else
        its own.

        Raises:
            DataError: its channels are others than those of the training.
        """
        return (one.scaler or self.scaler or Scaler.fit(SeriesSplit([one]))).rows_for(one)

    def covariate_statistics(
        self, one: Series, names: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation (C,) that covariates of a series are standardised by, from the rows of `statistics`; its
        own where there were several in training, and not this one.

        Raises:
            DataError: the training had other covariates.
        """
        trained = one.scaler or self.scaler
        if trained is None or (len(trained.names) > 1 and one.name not in trained.names):
            trained = Scaler.fit(SeriesSplit([one]))
        return trained.covariates_for(one, names)

    def windows(self, split: str, *, stride: int | None = None) -> Windows:
        """All windows of a split, `stride` rows apart (default: the configuration's).

        Raises:
            DataError: no series of the split is long enough.
        """
        step = stride or {"train": self.config.stride, "val": self.config.val_stride}.get(split, 1)
        if (split, step) not in self._windows:
            self._windows[split, step] = self.cut(split, step)
        return self._windows[split, step]

    def cut(self, split: str, stride: int) -> Windows:
        """Cut the windows of a split; called once for each split and stride."""
        return Windows(
            series_of(self.data.splits[split]),
            self.shapes.length,
            self.shapes.horizon,
            self.statistics,
            stride=stride,
            pad=self.config.short_series == "pad",
            what=split,
            known=self.shapes.known,
            past=self.shapes.past,
            covariate_statistics=self.covariate_statistics,
        )

    def samples(self, split: str) -> int:
        """Windows of a split times channels."""
        return len(self.windows(split))

    def build_model(self) -> nn.Module:
        """Return the host between its two projections.

        Raises:
            ModelError: the host cannot be had.
            ConfigError: the input is shorter than a patch, or has more patches than the host has positions.
        """
        options = self.model.options
        trunk = trunk_of(self.model, offline=self.ctx.offline)
        patch = int(options.get("patch") or self.patching[0])
        stride = int(options.get("stride") or self.patching[1])
        patches = patches_of(self.shapes.length, patch, stride)
        if trunk.positions and patches > trunk.positions:
            raise ConfigError(
                f"an input of {self.shapes.length} rows makes {patches} patches, and {self.model.name} has "
                f"{trunk.positions} positions: take a longer --model.stride or a shorter --task.input-length"
            )
        residual = str(options.get("residual", "none"))
        share = float(options.get("share", HostConfig().share)) if residual == "average" else None
        model = Forecaster(
            trunk,
            length=self.shapes.length,
            horizon=self.shapes.horizon,
            patch=patch,
            stride=stride,
            quantiles=len(self.config.quantiles),
            linear=residual != "none",
            share=share,
            known=len(self.shapes.known),
            past=len(self.shapes.past),
            covariate_rows=self.shapes.covariate_rows,
            seed=int(options.get("projection_seed", 0)),
        )
        if model.residual is not None and len(self.data.splits["train"]):
            start_linear(model, self.windows("train", stride=1), self.shapes.covariate_rows)
        self._card = {
            "host": self.model.name,
            "pretrained": bool(options.get("pretrained", True)),
            "patches": model.patches,
            "patch": f"{patch} rows, {stride} apart",
            "residual": residual if share is None else f"average, share {share:g}",
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        return model

    def model_card(self) -> dict[str, Any]:
        """The host, whether it was pretrained, its patches, and the parameters of all."""
        return self._card

    def prepare(self, splits: Sequence[str]) -> None:
        """Cut the windows of the splits, and say how many there are.

        Raises:
            DataError: a split has no window.
        """
        held = {split: self.windows(split) for split in splits}
        counts = ", ".join(f"{one.windows:,} {split}" for split, one in held.items())
        widths = {split: len(one.channels) for split, one in held.items()}
        wide = (
            f"each of {next(iter(widths.values()))} channels"
            if len(set(widths.values())) == 1
            else f"each of {', '.join(f'{width} channels in {split}' for split, width in widths.items())}"
        )
        self.notes.append(
            f"windows of {self.shapes.length} + {self.shapes.horizon} rows: {counts}"
            + (f", {wide}" if set(widths.values()) != {1} else "")
        )
        self.notes += [
            f"{one.idle:,} of {len(self.data.splits[split]):,} series have no window in {split}: they are too short"
            for split, one in held.items()
            if one.idle
        ]
        covariates = told(self.shapes, self.data.card)
        self.notes += [covariates] if covariates else []

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> WindowBatches:
        """Batches of windows of one channel; every one of them, the last batch may be smaller."""
        return WindowBatches(
            self.windows(split),
            batch_size,
            self.deviations(split),
            generator=generator if train else None,
            shuffle=train,
            most=self.config.epoch_samples if train else None,
        )

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:  # (B, H) or (B, H, Q)
        """Return the forecast, standardised."""
        return self._forward(model, batch)

    def trained_forecast(self, model: nn.Module, batch: Batch) -> Tensor:  # (B, H) or (B, H, Q)
        """Return what a loss looks at: the forecast, or the trunk's own where it is averaged with a line."""
        return self._forward(model, batch, alone=True)

    @staticmethod
    def _forward(model: nn.Module, batch: Batch, alone: bool = False) -> Tensor:
        if isinstance(model, Forecaster):
            given = {name: batch[name] for name in Forecaster.reads if name in batch}
            return model(batch["x"], **given, alone=alone)
        # a row to compare with may be told more of a series than its window
        return model(batch["x"], *(batch[name] for name in getattr(model, "reads", ())))

    def forecast(
        self, model: nn.Module, x: Tensor, more: Mapping[str, Tensor] | None = None
    ) -> Tensor:  # (B, H) or (B, H, Q)
        """Forecast from standardised windows (B, L) in which NaN stands for a missing value; `more` is what `ahead`
        gave."""
        values, seen = filled(x)
        gaps = bool((seen == 0).any())
        batch = {"x": values, "seen": seen} if gaps else {"x": values}
        return self.forward(model, batch | dict(more or {}))

    def ahead(self, one: Series, wanted: int | None = None) -> dict[str, Tensor]:
        """What a batch holds besides the input, a row for each channel, in a forecast of what comes behind `one.end`:
        the covariates. `wanted`: how many of its rows somebody asks for, by default all.

        Raises:
            DataError: a covariate is not there, or a known one is not known so far ahead.
        """
        found = ahead(self.shapes, one, self.covariate_statistics, wanted)
        return {kind: torch.from_numpy(part) for kind, part in found.items()}

    def predict(
        self, model: nn.Module, inputs: Sequence[Path], *, top: int = 5, device: torch.device | str = "cpu"
    ) -> list[dict[str, Any]]:
        """Return the forecast of each table, see `peftx_timeseries.tasks.predicting.forecasts`; `top` means nothing.

        Raises:
            DataError: a file cannot be read, lacks a channel, or is shorter than the input.
        """
        return forecasts(self, model, [Path(path) for path in inputs], device)

    def calibrate(
        self,
        model: nn.Module,
        splits: Sequence[str],
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, Any]:
        """Return the bounds of intervals, see `peftx_timeseries.tasks.intervals.calibration`."""
        return calibration(self, model, splits, device, autocast)

    def exhibit(
        self,
        model: nn.Module,
        split: str,
        details: Mapping[str, Any],
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, Any]:
        """Return forecasts from origins all over the split, see `peftx_timeseries.tasks.backtest`."""
        if not self.config.backtest:
            return {}
        series = series_of(self.data.splits[split]).series
        return backtest(self, model, split, series, self.config.backtest, device, autocast)

    def illustrate(
        self,
        model: nn.Module,
        inputs: Sequence[Path],
        answers: Sequence[Mapping[str, Any]],
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> list[Path]:
        """Write a picture of the forecast of each file, see `peftx_timeseries.tasks.picturing`."""
        with autocast():  # what was told is what is drawn
            return pictures(self, model, [Path(path) for path in inputs], folder, device)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared or absolute error, or the pinball loss of quantiles, over the observed values."""
        forecast = self.trained_forecast(model, batch).float()
        if forecast.dim() == 3:
            levels = torch.tensor(self.config.quantiles, device=forecast.device)
            return pinball_loss(forecast, batch["y"], levels)
        return self.point_loss(forecast, batch)

    def point_loss(self, forecast: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a point forecast (B, H); the absolute error where quantiles are asked for, whose median it
        stands for."""
        return squared_loss(
            forecast, batch["y"], 1 if self.config.loss == "mae" or self.config.quantiles else 2
        )

    def meter(self) -> ForecastMeter:
        """Return a fresh sum of errors."""
        return ForecastMeter(self.config.quantiles)

    def recipe(self, method: str) -> dict[str, Any]:
        """Return the settings of `peftx_timeseries.tasks.recipes`."""
        return recipe(method, drawn=self.config.epoch_samples is not None)

    def deviations(self, split: str) -> Tensor:  # (series, channels)
        """The deviation that each channel of each series of a split is standardised by."""
        held = series_of(self.data.splits[split])
        return torch.from_numpy(np.stack([self.statistics(one)[1] for one in held.series])).float()


class WindowBatches:
    """One pass over the windows of a split, or over the first `most` of them in its order."""

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        units: Tensor,
        *,
        generator: torch.Generator | None,
        shuffle: bool,
        most: int | None = None,
    ) -> None:
        self.windows, self.batch_size, self.units = windows, batch_size, units
        self.generator, self.shuffle, self.most = generator, shuffle, most
        #: the samples of the pass, in their order, where it is not to have all of them
        self.samples: Tensor | None = None

    def __len__(self) -> int:
        count = len(self.windows) if self.samples is None else len(self.samples)
        return -(-min(count, self.most or count) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.arange(len(self.windows)) if self.samples is None else self.samples
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=self.generator)]
        order = order[: self.most]
        channels = len(self.windows.channels)
        for samples in order.split(self.batch_size):
            x, y = (torch.from_numpy(part) for part in self.windows.cut(samples.numpy()))
            owner = torch.from_numpy(self.windows.owner[(samples // channels).numpy()])
            batch = {"x": x, "y": y, "std": self.units[owner, samples % channels]}
            if self.windows.gaps:
                batch["x"], batch["seen"] = filled(x)
            held = self.windows.covariates(samples.numpy())
            yield batch | {kind: torch.from_numpy(part) for kind, part in held.items()}


def filled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (B, L), each missing value replaced by the last one before it (by the first one after it, at the start;
    by 0 in a window without any), and a mask that is 1 where a value was observed."""
    seen = torch.isfinite(x)
    place = torch.arange(x.shape[1], device=x.device).expand_as(x)
    last = torch.where(seen, place, -1).cummax(1).values
    first = torch.where(seen, place, x.shape[1] - 1).min(1, keepdim=True).values
    values = torch.where(seen, x, 0.0).gather(1, torch.where(last < 0, first, last))
    return values, seen.float()


def series_of(split: Any) -> SeriesSplit:
    """The split, if it holds series.

    Raises:
        DataError: it holds something else.
    """
    if not isinstance(split, SeriesSplit):
        raise DataError(
            "these samples are no time series to forecast: take another data set of the time-series pack, or, for "
            "samples with classes, the task timeseries.classification"
        )
    return split
