"""The waves: the same on every machine, with the waves, the regimes and the noise they are said to have."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from peftx.data.contract import DataContext
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.data.waves import load, waves

CTX = DataContext(None, Path("nowhere"), offline=True)


def test_they_are_the_same_everywhere() -> None:
    values = waves(2400, 3, 0.3, 0)
    assert hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()[:16] == "5eccedbcffc7d5cf"
    assert not np.array_equal(waves(2400, 3, 0.3, 1), values)


def test_more_channels_leave_the_others_as_they_are() -> None:
    assert np.array_equal(waves(500, 5, 0.3, 0)[:, :3], waves(500, 3, 0.3, 0))


def test_a_day_and_a_week_stand_out_and_the_noise_is_as_told() -> None:
    quiet = waves(24 * 70, 4, 0.0, 3)[24 * 35 :]
    loud = waves(24 * 70, 4, 0.5, 3)[24 * 35 :]
    unit = quiet.std(0)
    detrended = quiet - quiet.mean(0)
    spectrum = np.abs(np.fft.rfft(detrended, axis=0)) ** 2
    frequencies = np.fft.rfftfreq(len(quiet), 1 / 24)  # per day
    strongest = frequencies[np.argsort(spectrum.sum(1))[::-1][:3]].round(3)
    assert 1.0 in strongest and 0.143 in strongest
    rest = (loud - quiet) / unit
    correlation = [np.corrcoef(rest[1:, m], rest[:-1, m])[0, 1] for m in range(4)]
    np.testing.assert_allclose(correlation, 0.6, atol=0.08)


def test_the_regime_changes_once_and_in_training() -> None:
    data = load(WavesConfig(), CTX)
    values = data.splits["train"][0].values
    change = 960
    assert data.splits["train"][0].end == 1680 > change
    day = values[: len(values) // 24 * 24].reshape(-1, 24, 3)
    spread = (day.max(1) - day.min(1)) / values.std(0)
    before, after = spread[: change // 24].mean(0), spread[change // 24 :].mean(0)
    assert (after > 1.15 * before).all()


def test_it_is_declared_synthetic_and_split_in_time() -> None:
    data = load(WavesConfig(rows=300, count=2, period=12), CTX)
    assert (
        data.card["synthetic"] and data.card["period"] == 12 and data.card["channels"] == ["wave1", "wave2"]
    )
    assert [split.extent for split in data.splits.values()] == [210, 30, 60]
    assert data.fingerprint == load(WavesConfig(rows=300, count=2, period=12), CTX).fingerprint
    assert data.fingerprint != load(WavesConfig(rows=300, count=2, period=12, wave_seed=1), CTX).fingerprint
