"""The suite of six problems."""

from __future__ import annotations

import pytest

from peftx.errors import DataError
from peftx_timeseries.data.uea import PROBLEMS
from peftx_timeseries.suites.uea import MEAN, UEA, averages


def test_it_has_the_six_problems_and_their_mean() -> None:
    labels = [f"timeseries.uea:{name}" for name in PROBLEMS]
    assert [one.name for one in UEA.data] == labels
    assert averages({name: 10.0 * at for at, name in enumerate(labels)}) == {MEAN: 25.0}
    with pytest.raises(DataError, match="SelfRegulationSCP2 has no score"):
        averages(dict.fromkeys(labels[:5], 1.0))
