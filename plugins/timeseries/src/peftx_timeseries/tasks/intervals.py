"""Forecasts of chosen windows, the intervals that their errors on validation make, and what these hold on test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peftx.errors import ConfigError
from peftx.tasks.contract import in_context
from peftx_timeseries.series.conformal import LEVELS, coverage, offsets

if TYPE_CHECKING:
    from peftx_timeseries.tasks.forecasting import Forecasting

    Floats = NDArray[np.float64]
    Autocast = Callable[[], AbstractContextManager[Any]]

__all__ = [
    "DEFAULT",
    "Bands",
    "bands_of",
    "calibration",
    "chosen_windows",
    "forecast_windows",
    "levels_of",
    "pairs_of",
]

#: Levels of intervals unless others are asked for.
DEFAULT = (0.8, 0.95)
#: Samples (windows of one channel) whose errors are looked at, at most, on validation and on test.
SAMPLES = {"val": 8192, "test": 4096}
#: Windows of each channel that bounds of its own are worth; below, all channels share theirs.
ENOUGH = 64
#: Bounds that a run keeps at most.
MOST = 200_000


@dataclass(frozen=True, slots=True)
class Bands:
    """Bounds of intervals by level, in standardised units: (channels or 1, H)."""

    bounds: Mapping[float, tuple[Floats, Floats]]
    channels: tuple[str, ...]

    def of(self, channel: str, level: float) -> tuple[Floats, Floats]:
        """What to add to each step of a channel's standardised forecast; NaN where there is no bound."""
        at = self.channels.index(channel) if channel in self.channels else 0
        low, high = self.bounds[level]
        return low[at], high[at]


def calibration(
    task: Forecasting, model: nn.Module, splits: Sequence[str], device: torch.device | str, autocast: Autocast
) -> dict[str, Any]:
    """Return the bounds that the errors on validation make, for each channel and step, and the share of test values
    they hold; {} with a quantile head, which needs none, and without a validation split.

    Where there are many channels, or few windows, channels share their bounds, in standardised units.
    """
    if task.config.quantiles or "val" not in splits:
        return {}
    windows = task.windows("val")
    channels = windows.channels
    shared = len(channels) > 1 and (
        windows.windows < ENOUGH
        or len(channels) * ENOUGH > SAMPLES["val"]
        or 2 * len(LEVELS) * len(channels) * task.shapes.horizon > MOST
    )
    errors = _residuals(task, model, "val", shared, device, autocast)
    bounds = [offsets(errors, level) for level in LEVELS]
    found: dict[str, Any] = {
        "kind": "split conformal",
        "levels": list(LEVELS),
        "channels": [] if shared else list(channels),
        "low": [_short(low) for low, _ in bounds],
        "high": [_short(high) for _, high in bounds],
        "windows": len(errors),
    }
    if "test" in splits:
        new = _residuals(task, model, "test", shared, device, autocast)
        held = [coverage(new, low, high) for low, high in bounds]
        found["test"] = {"windows": len(new), "coverage": held}
        told = [
            f"{held[at]:.1%} for {level:.0%}"
            for at, level in enumerate(LEVELS)
            if level in DEFAULT and held[at] is not None
        ]
        if told:
            task.notes.append(
                "intervals are split conformal, from the errors on validation, and nominal, since a time series is not "
                f"exchangeable: on test they hold {' and '.join(told)} of the values"
            )
    return found


def bands_of(task: Forecasting) -> Bands | None:
    """The bounds that a run kept, of the levels that its errors were enough for; None where it kept none that fit the
    task."""
    held = task.calibration
    try:
        channels = tuple(held["channels"])
        shape = (max(1, len(channels)), task.shapes.horizon)
        low, high = (
            [np.array(one, dtype=np.float64).reshape(shape) for one in held[key]] for key in ("low", "high")
        )
        pairs = zip(held["levels"], zip(low, high, strict=True), strict=True)
        found = {float(level): bounds for level, bounds in pairs if np.isfinite(bounds[0]).any()}
        return Bands(found, channels)
    except (KeyError, TypeError, ValueError):
        return None


def pairs_of(task: Forecasting) -> dict[float, tuple[int, int]]:
    """The intervals of a quantile head by their level, each the places of its lower and upper quantile."""
    held = task.config.quantiles
    found: dict[float, tuple[int, int]] = {}
    for at, lower in enumerate(held):
        for above in range(len(held) - 1, at, -1):
            if abs(lower + held[above] - 1) < 1e-9:
                found[round(held[above] - lower, 10)] = (at, above)
    return dict(sorted(found.items()))


def levels_of(task: Forecasting, asked: Sequence[float] | None, bands: Bands | None) -> tuple[float, ...]:
    """The levels to give intervals of; none where none can be given, and `asked` is None or nothing was kept.

    Raises:
        ConfigError: one that is asked for is not there.
    """
    head = bool(task.config.quantiles)
    there = tuple(pairs_of(task)) if head else tuple(bands.bounds) if bands is not None else ()
    for level in asked or ():
        if (there or head) and not any(abs(level - one) < 1e-9 for one in there):
            have = ", ".join(f"{one:g}" for one in there)
            raise ConfigError(
                f"--level {level:g}: the run forecasts the quantiles {', '.join(map(str, task.config.quantiles))}, "
                + (f"which make the levels {have}" if there else "which make no interval")
                if head
                else f"--level {level:g}: the run kept the bounds of {have}"
            )
    if asked is None:
        return there if head else tuple(one for one in DEFAULT if one in there)
    return tuple(one for one in there if any(abs(one - level) < 1e-9 for level in asked))


def chosen_windows(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` windows, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, max(1, most))).round().astype(np.int64))


@torch.no_grad()
def forecast_windows(
    task: Forecasting,
    model: nn.Module,
    split: str,
    samples: NDArray[np.int64],
    device: torch.device | str,
    autocast: Autocast,
) -> tuple[Floats, Floats]:
    """Standardised forecasts (n, H) or (n, H, Q) and values (n, H) of some samples of a split; NaN: missing."""
    batches = task.batches(split, 256)
    batches.samples = torch.from_numpy(samples)
    outputs, targets = [], []
    for batch in batches:
        moved = {name: value.to(device) for name, value in batch.items()}
        with autocast(), in_context(task, model, moved):
            outputs.append(task.forward(model, moved).double().cpu().numpy())
        targets.append(batch["y"].double().numpy())
    return np.concatenate(outputs), np.concatenate(targets)


def _residuals(
    task: Forecasting,
    model: nn.Module,
    split: str,
    shared: bool,
    device: torch.device | str,
    autocast: Autocast,
) -> Floats:  # (n, channels, H), or (n, 1, H) where channels share their bounds
    windows, most = task.windows(split), SAMPLES[split]
    channels = len(windows.channels)
    if shared:
        samples = chosen_windows(len(windows), most)
    else:
        held = chosen_windows(windows.windows, most // channels)
        samples = (held[:, None] * channels + np.arange(channels)).ravel()
    made, values = forecast_windows(task, model, split, samples, device, autocast)
    return (values - made).reshape(-1, 1 if shared else channels, values.shape[1])


def _short(values: Floats) -> list[list[float]]:
    """Six digits, which no interval is worth more than."""
    return [[float(f"{value:.6g}") for value in row] for row in values.tolist()]
