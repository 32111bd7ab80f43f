"""Faults: a synthetic set for anomaly detection that is there without a download. No figure on it says anything about
real machines.

Channel m at row t, with periods, phases and weights of its own, and two waves that all channels share:

    x = unit (level + a sin(2 pi t / P + p) + 0.4 sin(4 pi t / P + q) + b g1_t + c g2_t + noise e_t)
    g1, g2: sines of 60 and 147 rows       P: 20 to 48 rows       e standard normal

As many test rows go on from the normal ones, and `events` faults of each kind are put into a third of the channels
each:

    spike          one to three rows, 3 to 6 of the channel's own deviations away
    level_shift    40 to 80 rows, 1.5 to 3 deviations higher or lower
    frequency      60 to 120 rows, the channel's own wave at twice its frequency
    flat           40 to 100 rows of the value before

The rows of a fault are labelled by its kind. Faults are spread over the test rows, a margin of normal ones between two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError
from peftx_timeseries.config.anomaly import FaultsConfig
from peftx_timeseries.data.labelled import labelled_dataset
from peftx_timeseries.data.labelled_files import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Labels = NDArray[np.int8]

__all__ = ["KINDS", "faults", "load"]

#: The kinds of faults, and the fewest and most rows of one.
KINDS = {"spike": (1, 3), "level_shift": (40, 80), "frequency": (60, 120), "flat": (40, 100)}
#: Normal rows that are left between two faults at least.
_MARGIN = 5


def load(config: FaultsConfig, ctx: DataContext) -> Dataset:
    """Return the data set; validation is the last fifth of the normal rows.

    Raises:
        DataError: so many faults have no room in the test rows.
    """
    values, labels = faults(config.rows, config.count, config.events, config.noise, config.fault_seed)
    names = tuple(f"sensor{number}" for number in range(1, config.count + 1))
    pair = Pair("faults", names, values[: config.rows], values[config.rows :], labels)
    return labelled_dataset(
        "timeseries.faults",
        (pair,),
        val_fraction=0.2,
        source="computed from a seed",
        licence="none needed",
        note=f"synthetic; {config.events} faults each of {', '.join(KINDS)}",
        kinds=tuple(KINDS),
        synthetic=True,
    )


def faults(rows: int, channels: int, events: int, noise: float, seed: int) -> tuple[Values, Labels]:
    """Return twice `rows` rows (2 R, M), rounded to six decimals, and the labels of the second half (R,): 0, or 1 and
    on in the order of `KINDS`.

    Rounded, and drawn from the raw stream of PCG64, they are the same on every machine.

    Raises:
        DataError: so many faults have no room in the rows.
    """
    import numpy as np

    slot = rows // (events * len(KINDS))
    most = max(longest for _, longest in KINDS.values())
    if slot < most + 2 * _MARGIN:
        raise DataError(
            f"{events} faults of {len(KINDS)} kinds need {events * len(KINDS) * (most + 2 * _MARGIN):,} test rows, and "
            f"there are {rows:,}: take more --data.rows or fewer --data.events"
        )
    time = np.arange(2 * rows, dtype=np.float64)
    shared = [np.sin(2 * np.pi * time / period) for period in (60, 147)]
    values, waves = np.empty((2 * rows, channels)), []
    for number in range(channels):
        stream = np.random.PCG64([seed, number])
        phase, second, size, level, own, one, two, period = _uniform(stream, 8)
        length = np.floor(20 + 28 * period)
        angle = 2 * np.pi * (time / length + phase)
        drawn = np.sqrt(-2 * np.log(_uniform(stream, 2 * rows))) * np.cos(
            2 * np.pi * _uniform(stream, 2 * rows)
        )
        wave = (0.5 + own) * np.sin(angle) + 0.4 * np.sin(2 * angle + 2 * np.pi * second)
        values[:, number] = 4 * level + wave + one * shared[0] + two * shared[1] + noise * drawn
        # the same wave at twice its frequency, for the fault that has it
        waves.append(((0.5 + own) * np.sin(2 * angle) - (0.5 + own) * np.sin(angle), 10 ** (2 * size)))
    labels = np.zeros(rows, dtype=np.int8)
    _strike(values[rows:], labels, [wave[rows:] for wave, _ in waves], values[:rows].std(0), slot, seed)
    return (values * np.array([unit for _, unit in waves])).round(6), labels


def _strike(
    values: Values, labels: Labels, changed: list[Values], spread: Values, slot: int, seed: int
) -> None:
    """Put a fault into each slot of rows, kind after kind in a drawn order."""
    import numpy as np

    stream = np.random.PCG64([seed, 1_000_003])
    channels = values.shape[1]
    count = len(values) // slot
    events = count // len(KINDS)
    kinds = np.argsort(_uniform(stream, events * len(KINDS)), kind="stable") % len(KINDS)
    for at, kind in enumerate(kinds):
        shortest, longest = list(KINDS.values())[kind]
        length = shortest + int(_uniform(stream, 1)[0] * (longest - shortest + 1) * 0.999999)
        room = slot - length - 2 * _MARGIN
        begin = at * slot + _MARGIN + int(_uniform(stream, 1)[0] * room)
        rows = slice(begin, begin + length)
        hit = np.argsort(_uniform(stream, channels), kind="stable")[: max(1, channels // 3)]
        size, sign = _uniform(stream, 1)[0], 1.0 if _uniform(stream, 1)[0] < 0.5 else -1.0
        for channel in hit:
            if kind == 0:
                values[rows, channel] += sign * (3 + 3 * size) * spread[channel]
            elif kind == 1:
                values[rows, channel] += sign * (1.5 + 1.5 * size) * spread[channel]
            elif kind == 2:
                values[rows, channel] += changed[channel][rows]
            else:
                values[rows, channel] = values[max(begin - 1, 0), channel]
        labels[rows] = kind + 1


def _uniform(stream: np.random.PCG64, count: int) -> Values:
    """Draws from (0, 1]."""
    import numpy as np

    return ((stream.random_raw(count) >> np.uint64(11)).astype(np.float64) + 1) / 2.0**53
