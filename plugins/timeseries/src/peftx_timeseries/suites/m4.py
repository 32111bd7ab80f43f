"""timeseries/m4: the six groups of the M4 competition, with the averages that papers print.

Protocol: S. Makridakis, E. Spiliotis, V. Assimakopoulos, International Journal of Forecasting 36 (2020), as TSLib
(github.com/thuml/Time-Series-Library) trains networks on it: an input of twice the horizon, one random window of each
series an epoch, batches of 16, the symmetric percentage error as the loss. The last epoch is the best on the horizon
before the test's, which the competition counts to the training values; nothing is trained on it here.

Averages are weighted by the number of series: Others are the 5,000 weekly, daily and hourly ones. Of the symmetric
percentage error that is the mean over all 100,000 series. The published row is the organisers' Naive2, whose figures
on the hourly and the weekly group are reproduced by a test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from peftx.config.suite import Published, PublishedAverage, Suite
from peftx.errors import DataError

__all__ = ["ALL", "M4", "SERIES", "averages"]

DATA = "timeseries.m4"
#: Series of each group, in the order of the tables.
SERIES = {
    "yearly": 23_000,
    "quarterly": 24_000,
    "monthly": 48_000,
    "weekly": 359,
    "daily": 4_227,
    "hourly": 414,
}
_OTHERS = ("weekly", "daily", "hourly")
#: What the average over everything is called.
ALL = "all 100,000 series"

_SOURCE = "M4 (IJF 36, 2020), Naive2 of the organisers"
_NAIVE2 = {
    "yearly": 16.342,
    "quarterly": 11.012,
    "monthly": 14.427,
    "weekly": 9.161,
    "daily": 3.045,
    "hourly": 18.383,
}


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the averages of the scores of the six groups (by the suite's labels), weighted by their series.

        all = 1/N sum_g n_g s_g        N = sum_g n_g = 100,000

    Raises:
        DataError: a group is missing, one is unknown, or a score is no finite number.
    """
    own = {name.removeprefix(f"{DATA}:"): score for name, score in scores.items()}
    strange = next((name for name in own if name not in SERIES), None)
    if strange is not None:
        raise DataError(f"M4 has no group {strange!r}: its groups are {', '.join(SERIES)}")
    absent = [name for name in SERIES if name not in own]
    if absent:
        raise DataError(f"the averages of M4 take all {len(SERIES)} groups; missing: {', '.join(absent)}")
    broken = next((name for name in SERIES if not math.isfinite(own[name])), None)
    if broken is not None:
        raise DataError(f"the score of {broken} is {own[broken]}, not a finite number")

    def mean(*groups: str) -> float:
        return math.fsum(SERIES[name] * own[name] for name in groups) / sum(SERIES[name] for name in groups)

    return {
        ALL: mean(*SERIES),
        "Yearly": own["yearly"],
        "Quarterly": own["quarterly"],
        "Monthly": own["monthly"],
        "Others": mean(*_OTHERS),
    }


M4 = Suite(
    task="timeseries.short_term",
    about=(
        "M4: 100,000 series in six groups, each forecast once by the symmetric percentage error. Inputs are twice the "
        "horizon long; an epoch sees one random window of each series. The host is MiniLM-L6, frozen but for what a "
        "method trains. Averages are weighted by the number of series."
    ),
    data=tuple({"name": f"{DATA}:{group}"} for group in SERIES),
    models=({"name": "timeseries.minilm"},),
    methods=(
        "timeseries.one_for_all",
        "timeseries.gpt4ts",
        "core.head",
        "core.lora",
        "timeseries.naive2",
        "timeseries.repeat_last",
        "timeseries.seasonal_naive",
        "timeseries.window_mean",
        "timeseries.least_squares",
        "timeseries.dlinear",
        "timeseries.nlinear",
    ),
    seeds=1,
    rates=(3e-4, 1e-3, 3e-3, 1e-2),
    published=tuple(
        Published(method="Naive2", data=f"{DATA}:{group}", value=value, source=_SOURCE)
        for group, value in _NAIVE2.items()
    ),
    published_averages=(
        PublishedAverage(
            method="Naive2",
            values={name: round(value, 3) for name, value in averages(_NAIVE2).items()},
            source=f"{_SOURCE}; averages are ours",
        ),
    ),
)
