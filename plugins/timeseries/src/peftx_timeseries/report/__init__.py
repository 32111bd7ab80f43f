"""Pictures and panels of the time-series pack. Torch-free: they read what a run leaves in its folder."""

from __future__ import annotations

from peftx_timeseries.report.backtest import backtest

__all__ = ["backtest"]
