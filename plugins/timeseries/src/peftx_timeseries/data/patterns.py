"""Patterns: a synthetic data set of six classes, which is there without a download, for first steps and for tests.

A class is one of three wave forms w (sine, square, sawtooth) and which of two channels is ahead of the other. Sample
for sample, with a frequency f of 2 to 5 cycles, a phase p, amplitudes and slopes of its own:

    x_1(t) = a_1 w(f t + p) + b_1 t + s u_1(t)
    x_2(t) = a_2 w(f t + p + d / 4) + b_2 t + s u_2(t)       d = 1: channel 2 is ahead by a quarter, -1: behind
    x_3(t) = a_3 sin(2 pi (g t + q)) + s u_3(t)              g, q of its own: it says nothing
    u(t) = 0.5 u(t - 1) + e(t)                               e standard normal, t from 0 to 1, s = noise

The phase is uniform, so that the means of all classes are the same and no linear map of the steps tells the classes
apart. No figure on it says anything about real series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx_timeseries.config.classification import PatternsConfig
from peftx_timeseries.data.samples import make_samples
from peftx_timeseries.series.samples import SampleSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["CLASSES", "load", "pattern"]

_FORMS = ("sine", "square", "sawtooth")
#: The classes, in order.
CLASSES = tuple(f"{form} {order}" for form in _FORMS for order in ("behind", "ahead"))


def load(config: PatternsConfig, ctx: DataContext) -> Dataset:
    """Return the data set; classes take turns, so that each has its share of every split."""
    parts = []
    for number, count in enumerate((config.train, config.test)):
        labels = [index % len(CLASSES) for index in range(count)]
        values = [pattern(config, label, (number, index)) for index, label in enumerate(labels)]
        parts.append(SampleSplit(values, labels))
    return make_samples(
        "timeseries.patterns",
        parts[0],
        parts[1],
        CLASSES,
        config,
        source="computed from a seed",
        licence="none needed",
        notes=("synthetic",),
        synthetic=True,
    )


def pattern(config: PatternsConfig, label: int, place: tuple[int, int]) -> Values:
    """Return one sample (T, 3) of a class by the module's equations, rounded to six decimals.

    Rounded, and drawn from the raw stream of PCG64, it is the same on every machine (see `peftx.data.splits`). `place`:
    split and number of the sample, which has a stream of its own.
    """
    import numpy as np

    stream = np.random.PCG64([config.pattern_seed, *place])

    def uniform(count: int) -> Values:  # (0, 1]
        return ((stream.random_raw(count) >> np.uint64(11)).astype(np.float64) + 1) / 2.0**53

    form, ahead = divmod(label, 2)
    length = config.length
    cut, f, p, g, q, *rest = uniform(10)
    steps = round(length * (0.5 + 0.5 * cut)) if config.unequal else length
    amplitudes, slopes = 0.7 + 0.6 * np.array(rest[:3]), np.array([*rest[3:], 0.5]) - 0.5
    t = np.arange(steps) / length
    angle = (2 + 3 * f) * t + p
    waves = np.stack(
        [
            _wave(form, angle),
            _wave(form, angle + (0.25 if ahead else -0.25)),
            np.sin(2 * np.pi * ((2 + 3 * g) * t + q)),
        ],
        1,
    )
    first, second = uniform(steps * 3), uniform(steps * 3)
    noise = (np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)).reshape(steps, 3)
    for row in range(1, steps):
        noise[row] += 0.5 * noise[row - 1]
    values = (amplitudes * waves + slopes * t[:, None] + config.noise * noise).round(6)
    if config.missing:
        gone = uniform(steps * 3).reshape(steps, 3) <= config.missing
        gone[-1, 0] = False  # so that no sample is all missing, or shorter than it is
        values[gone] = np.nan
    return values


def _wave(form: int, angle: Values) -> Values:
    """A wave of period 1 and amplitude 1."""
    import numpy as np

    if form == 2:
        return 2 * (angle % 1.0) - 1
    sine = np.sin(2 * np.pi * angle)
    return np.where(sine >= 0, 1.0, -1.0) if form == 1 else sine
