"""timeseries/ett: ETTh1 and ETTh2 at four horizons, on a pretrained host that two cores can train.

Protocol: TSLib's borders, standardised by the training months, an input of 336 rows, every window of the test months.
The host is the first two blocks of MiniLM-L6 over patches of two days: 8 tokens. Each epoch draws an eighth of the
training windows anew, and the epoch is chosen on every eighth validation window; the closed form sees all windows.
"""

from __future__ import annotations

from peftx.config.suite import Published, Suite

__all__ = ["ETT", "HORIZONS", "HOST"]

HORIZONS = (96, 192, 336, 720)
#: Two days a patch, and a patch a token.
HOST = {"name": "timeseries.minilm", "blocks": 2, "patch": 48, "stride": 48}
_SETS = ("etth1", "etth2")
#: Test MSE at the four horizons, as the benchmark file of LTSF-Linear prints it (input of 336 rows).
_LTSF = {
    ("DLinear", "etth1"): (0.375, 0.405, 0.439, 0.472),
    ("DLinear", "etth2"): (0.289, 0.383, 0.448, 0.605),
    ("NLinear", "etth1"): (0.374, 0.408, 0.429, 0.440),
    ("NLinear", "etth2"): (0.277, 0.344, 0.357, 0.394),
}

ETT = Suite(
    task="timeseries.forecasting",
    about=(
        "ETTh1 and ETTh2 from the last 336 hours, at four horizons; every test window is scored, standardised by the "
        "training months. Host: two blocks of MiniLM-L6 over patches of two days. Each epoch draws 7,168 windows of "
        "one channel, and the epoch is chosen on every eighth validation window; the closed form is fitted to all."
    ),
    data=tuple(
        {"name": f"timeseries.{name}", "task": {"horizon": horizon}} for name in _SETS for horizon in HORIZONS
    ),
    models=(HOST,),
    methods=(
        "timeseries.one_for_all",
        "timeseries.gpt4ts",
        "core.head",
        "timeseries.repeat_last",
        "timeseries.seasonal_naive",
        "timeseries.window_mean",
        "timeseries.least_squares",
        "timeseries.dlinear",
        "timeseries.nlinear",
    ),
    seeds=3,
    task_options={"input_length": 336, "epoch_samples": 7168, "val_stride": 8},
    train={"eval_batch_size": 1024},
    rates=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    published=tuple(
        Published(
            method=method,
            data=f"timeseries.{name} task.horizon={horizon}",
            value=value,
            source="LTSF-Linear, its table of benchmarks",
        )
        for (method, name), values in _LTSF.items()
        for horizon, value in zip(HORIZONS, values, strict=True)
    ),
)
