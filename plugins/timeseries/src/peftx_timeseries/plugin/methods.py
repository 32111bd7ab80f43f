"""The methods of the pack: two adapters, and the rows to compare with. Descriptors only: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import MethodSpec, Needs, hookimpl
from peftx_timeseries.plugin import anomaly, classification, short_term

__all__ = ["ROWS", "peftx_methods"]

_CONFIG = "peftx_timeseries.config.methods"
_NAIVE = "peftx_timeseries.methods.naive"
_LINEAR = "peftx_timeseries.methods.linear"
_ZENG = "arXiv:2205.13504"

#: The tasks that forecast.
_FORECASTING = ("timeseries.forecasting", short_term.NAME)
#: Rows to compare with, always printed: name, summary, target, configuration, trained, paper.
_COMPARED = (
    ("repeat_last", "the last value, for ever", f"{_NAIVE}:RepeatLast", "NaiveConfig", False, ""),
    (
        "seasonal_naive",
        "the last season, again and again",
        f"{_NAIVE}:SeasonalNaive",
        "SeasonalConfig",
        False,
        "",
    ),
    ("window_mean", "the mean of the input, for ever", f"{_NAIVE}:WindowMean", "NaiveConfig", False, ""),
    (
        "least_squares",
        "a linear forecast in closed form, relative to the last value",
        f"{_LINEAR}:LeastSquares",
        "LeastSquaresConfig",
        False,
        "",
    ),
    (
        "dlinear",
        "DLinear: a linear map of the trend and one of the rest",
        f"{_LINEAR}:DLinear",
        "DLinearConfig",
        True,
        _ZENG,
    ),
    (
        "nlinear",
        "NLinear: a linear map relative to the last value",
        f"{_LINEAR}:NLinear",
        "NaiveConfig",
        True,
        _ZENG,
    ),
)
ROWS = tuple(f"timeseries.{name}" for name, *_ in _COMPARED)


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
    for name, summary, target, config, trained, paper in _COMPARED:
        yield MethodSpec(
            name=f"timeseries.{name}",
            summary=summary,
            target=target,
            config=f"{_CONFIG}:{config}",
            kind="model",
            paper=paper,
            licence="Apache-2.0",
            tags=("baseline",),
            trained=trained,
            tasks=_FORECASTING,
        )
    yield from short_term.rows()
    yield from anomaly.rows()
    yield from classification.rows()
