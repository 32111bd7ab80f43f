"""timeseries/anomaly: the five labelled sets that papers share, scored honestly. Torch-free.

No published row stands beside it: figures of papers are point-adjusted F1 under a threshold that looked at the test
set, by which uniform noise does as well (arXiv:2109.05257), and not the average precision that ranks here.
"""

from __future__ import annotations

from peftx.config.suite import Suite

__all__ = ["ANOMALY"]

_SETS = ("PSM", "MSL", "SMAP", "SMD", "SWaT")

ANOMALY = Suite(
    task="timeseries.anomaly",
    about=(
        "Five labelled sets in the layouts of TSLib. Training stops before the last fifth of the training rows, where "
        "the reconstruction error selects; the threshold is a percentile of training and validation scores, by the "
        "protocol's ratio of each set; rows are ranked by the average precision, and point-adjusted figures are told "
        "apart. The host is MiniLM-L6, where the papers have GPT-2. Read beside noise, a distance and PCA, which take "
        "seconds. You bring the data."
    ),
    data=tuple({"name": f"timeseries.labelled:{name}"} for name in _SETS),
    models=({"name": "timeseries.minilm"},),
    methods=(
        "timeseries.one_for_all",
        "timeseries.gpt4ts",
        "core.head",
        "core.lora",
        "timeseries.zero_reconstruction",
        "timeseries.pca",
        "timeseries.random_score",
    ),
    seeds=3,
    task_options={"stride": 100},
)
