"""The suite of labelled sets: it names what is there, and its protocol is the task's."""

from __future__ import annotations

from peftx.plugins.manager import get_registry
from peftx_timeseries.config.anomaly import AnomalyConfig
from peftx_timeseries.data.labelled import RATIOS
from peftx_timeseries.plugin.anomaly import ANOMALY_ROWS
from peftx_timeseries.suites.anomaly import ANOMALY


def test_the_suite_is_registered_and_all_it_names_is_known() -> None:
    registry = get_registry()
    assert registry.suites["timeseries.anomaly"].load() is ANOMALY
    for method in ANOMALY.methods:
        assert registry.resolve_method(method.name, "timeseries").name == method.name
    assert {method.name for method in ANOMALY.methods} >= set(ANOMALY_ROWS)
    assert AnomalyConfig(**ANOMALY.task_options).threshold == "train_val"


def test_each_of_the_five_sets_has_the_ratio_of_its_protocol() -> None:
    names = [one.name.removeprefix("timeseries.labelled:") for one in ANOMALY.data]
    assert len(names) == 5 and {name.lower() for name in names} == set(RATIOS)
