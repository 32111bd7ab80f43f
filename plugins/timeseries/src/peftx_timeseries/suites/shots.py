"""timeseries/few_shot and timeseries/zero_shot: ETTh1 and ETTh2 from few rows, and each from the other's.

Protocol: GPT4TS (arXiv:2302.11939). Few-shot training sees the first ``L + (8640 - L) p // 100`` of the 8,640 training
rows, p = 5 or 10, standardised by all of them; validation and test are the whole ones. Zero-shot trains and validates
on one of the two and tests on the other, which its own training rows standardise. Inputs have L = 336 rows, forecasts
96; other horizons are suites of their own, by a TOML file of the same shape.
"""

from __future__ import annotations

from peftx.config.suite import Suite

__all__ = ["FEW_SHOT", "INPUT", "ZERO_SHOT"]

#: Rows of the input; of a few-shot training split so many are there beside the percentage.
INPUT = 336
_OPTIONS = {"input_length": INPUT, "horizon": 96, "val_stride": 24}
_METHODS = (
    "timeseries.one_for_all",
    "timeseries.gpt4ts",
    "core.head",
    "core.lora",
    "timeseries.repeat_last",
    "timeseries.seasonal_naive",
    "timeseries.window_mean",
    "timeseries.least_squares",
    "timeseries.dlinear",
    "timeseries.nlinear",
)
_ABOUT = (
    "The host is MiniLM-L6, frozen but for what a method trains; every test window is scored, and the epoch is chosen "
    "on one validation window of each day."
)

FEW_SHOT = Suite(
    task="timeseries.forecasting",
    about=(
        "The next 96 hours of ETTh1 and ETTh2 from the last 336, trained on the first 5 and 10 % of the training rows "
        f"as GPT4TS counts them: 320 and 735 windows. {_ABOUT} So few windows are a few steps an epoch: the rate is "
        "that of the official few-shot scripts for all rows, unless it is searched."
    ),
    data=tuple(
        {"name": f"timeseries.{name}", "train_fraction": fraction, "train_context": INPUT}
        for name in ("etth1", "etth2")
        for fraction in (0.05, 0.1)
    ),
    models=({"name": "timeseries.minilm"},),
    methods=_METHODS,
    seeds=3,
    task_options=_OPTIONS,
    train={"lr": 1e-3},
    rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
)

ZERO_SHOT = Suite(
    task="timeseries.forecasting",
    about=(
        "The next 96 hours of one transformer from the last 336, trained and validated on another: ETTh1 to ETTh2 and "
        f"back. Each is standardised by its own training rows. {_ABOUT}"
    ),
    data=tuple(
        {"name": "timeseries.transfer", "source": f"timeseries.{source}", "target": f"timeseries.{target}"}
        for source, target in (("etth1", "etth2"), ("etth2", "etth1"))
    ),
    models=({"name": "timeseries.minilm"},),
    methods=_METHODS,
    seeds=3,
    task_options=_OPTIONS,
)
