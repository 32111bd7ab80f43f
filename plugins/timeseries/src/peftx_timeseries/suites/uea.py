"""timeseries/uea: six problems of the UEA archive.

Protocol: the official split of the archive; a fifth of the train file, the same of each class, is held out to choose
the epoch. The six are those that One-for-All (arXiv:2603.29756) takes of the ten of GPT4TS (arXiv:2302.11939). Its
official scripts choose the epoch by the score on the test file, so figures of the papers do not stand beside these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from peftx.config.suite import Suite
from peftx.errors import DataError

__all__ = ["MEAN", "UEA", "averages"]

_PROBLEMS = (
    "EthanolConcentration",
    "FaceDetection",
    "Heartbeat",
    "JapaneseVowels",
    "SelfRegulationSCP1",
    "SelfRegulationSCP2",
)
#: What the average is called.
MEAN = "mean of 6 problems"


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of the six scores (by the suite's labels).

    Raises:
        DataError: one is missing or no finite number.
    """
    labels = [f"timeseries.uea:{name}" for name in _PROBLEMS]
    absent = next((name for name in labels if not math.isfinite(scores.get(name, math.nan))), None)
    if absent is not None:
        raise DataError(f"the average takes all {len(labels)} problems, and {absent} has no score")
    return {MEAN: math.fsum(scores[name] for name in labels) / len(labels)}


UEA = Suite(
    task="timeseries.classification",
    about=(
        "Six problems of the UEA archive, with its own test files; a fifth of each train file is held out, and the "
        "epoch is chosen on it, never on the test. The host is MiniLM-L6, frozen but for what a method trains, with "
        "patches of 8 steps, 4 apart, for every problem (the official scripts have their own for each). Read beside "
        "the nearest neighbour and ROCKET, which take seconds. You bring the data."
    ),
    data=tuple({"name": f"timeseries.uea:{name}"} for name in _PROBLEMS),
    models=({"name": "timeseries.minilm"},),
    methods=(
        "timeseries.one_for_all",
        "timeseries.gpt4ts",
        "core.head",
        "core.lora",
        "timeseries.majority",
        "timeseries.nearest",
        "timeseries.rocket",
    ),
    seeds=3,
)
