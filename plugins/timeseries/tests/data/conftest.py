"""Small tables in the layouts of the real ones, and the real ones where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from peftx.data.contract import DataContext


@pytest.fixture
def ctx(tmp_path: Path) -> DataContext:
    return DataContext(tmp_path, tmp_path / "cache", offline=True)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write text or bytes to a file of the test's folder."""

    def to(text: str | bytes, name: str = "x.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return to


@pytest.fixture
def table() -> Callable[..., pd.DataFrame]:
    """A wide table: `date`, channels a and b."""

    def make(rows: int = 60, freq: str = "h", start: str = "2024-01-01") -> pd.DataFrame:
        times = pd.date_range(start, periods=rows, freq=freq)
        shown = times.strftime("%Y-%m-%d %H:%M:%S")
        return pd.DataFrame({"date": shown, "a": np.arange(rows) * 0.5, "b": np.arange(rows)[::-1] + 100})

    return make


@pytest.fixture(scope="session")
def real() -> Path:
    folder = Path(os.environ.get("PEFTX_SHARED_DATA", "")) / "timeseries"
    if not os.environ.get("PEFTX_SHARED_DATA") or not folder.is_dir():
        pytest.skip("PEFTX_SHARED_DATA has no timeseries")
    return folder
