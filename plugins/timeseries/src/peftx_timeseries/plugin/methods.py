"""The methods of the pack: two adapters, and the rows to compare with. Descriptors only: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import MethodSpec, Needs, hookimpl
from peftx_timeseries.plugin import anomaly, classification, short_term
from peftx_timeseries.plugin.shared import compared

__all__ = ["ROWS", "peftx_methods"]

_CONFIG = "peftx_timeseries.config.methods"
_ZENG = "arXiv:2205.13504"

#: The tasks that forecast.
_FORECASTING = ("timeseries.forecasting", short_term.NAME)
_ROWS = (
    compared(
        "repeat_last",
        "the last value, for ever",
        "methods.naive:RepeatLast",
        "config.methods:NaiveConfig",
        *_FORECASTING,
    ),
    compared(
        "seasonal_naive",
        "the last season, again and again",
        "methods.naive:SeasonalNaive",
        "config.methods:SeasonalConfig",
        *_FORECASTING,
    ),
    compared(
        "window_mean",
        "the mean of the input, for ever",
        "methods.naive:WindowMean",
        "config.methods:NaiveConfig",
        *_FORECASTING,
    ),
    compared(
        "least_squares",
        "a linear forecast in closed form, relative to the last value",
        "methods.linear:LeastSquares",
        "config.methods:LeastSquaresConfig",
        *_FORECASTING,
    ),
    compared(
        "dlinear",
        "DLinear: a linear map of the trend and one of the rest",
        "methods.linear:DLinear",
        "config.methods:DLinearConfig",
        *_FORECASTING,
        trained=True,
        paper=_ZENG,
    ),
    compared(
        "nlinear",
        "NLinear: a linear map relative to the last value",
        "methods.linear:NLinear",
        "config.methods:NaiveConfig",
        *_FORECASTING,
        trained=True,
        paper=_ZENG,
    ),
)
#: Rows to compare with, always printed.
ROWS = tuple(row.name for row in _ROWS)


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Methods that come from time series; those of core and of other packs run on every task here as well."""
    yield MethodSpec(
        name="timeseries.one_for_all",
        summary="One-for-All: rank-stabilised LoRA on the positional embedding and the output projection",
        target="peftx_timeseries.methods.one_for_all:OneForAll",
        config=f"{_CONFIG}:OneForAllConfig",
        paper="arXiv:2603.29756",
        licence="Apache-2.0",
        tags=("low-rank",),
        needs=Needs(sites=("linear", "linear_t", "conv1d", "conv2d", "embedding")),
        size="rank",
    )
    yield MethodSpec(
        name="timeseries.gpt4ts",
        summary="GPT4TS: norms, positional embedding and projections trained, attention and MLPs frozen",
        target="peftx_timeseries.methods.gpt4ts:GPT4TS",
        config=f"{_CONFIG}:GPT4TSConfig",
        paper="arXiv:2302.11939",
        licence="Apache-2.0",
        tags=("selective",),
    )
    yield from _ROWS
    yield from short_term.rows()
    yield from anomaly.rows()
    yield from classification.rows()
