"""Plugins: every law finds the fault planted for it alone; core's own and a sound one pass."""

from __future__ import annotations

import sys

import pytest

from peftx.errors import UnknownNameError
from peftx.plugins.manager import forget, get_registry
from peftx.testing import check, laws_of

SOUND = """
from peftx.plugins import MethodSpec, hookimpl
{top}
{api}

@hookimpl
def peftx_methods():
    yield MethodSpec({name!r}, {summary!r}, {target!r}, {config!r}, licence={licence!r}, kind={kind!r})
{more}
"""
DEFAULTS = {
    "api": "PEFTX_API = 1",
    "name": "sample.gain",
    "summary": "one gain for each output",
    "target": "sample_method:Gain",
    "config": "sample_config:GainConfig",
    "licence": "MIT",
    "kind": "adapter",
    "top": "",
    "more": "",
}
CONFIG = """
{top}
from peftx.config.adapter import AdapterConfig

class GainConfig(AdapterConfig):
    "Gain."

class OtherConfig(AdapterConfig):
    "Another."
"""
METHOD = """
from peftx.adapters import AdapterMethod, Delta
from sample_config import GainConfig

class Gain(AdapterMethod):
    Config = GainConfig
    Delta = Delta
"""
SUITE = """
from peftx.config.suite import Suite
from peftx.plugins import SuiteSpec

DEFAULTS = {{}}
GRID = Suite(task={task!r}, about="Nothing.", data=("sample.data",))

@hookimpl
def peftx_suites():
    yield SuiteSpec("sample.grid", "a grid of nothing", {target!r})
"""
#: a suite whose pack makes its averages, from data there are
AVERAGED = """
from peftx.config.suite import PublishedAverage, Suite
from peftx.plugins import DatasetSpec, ModelSpec, SuiteSpec, TaskSpec

GRID = Suite(task="sample.task", about="Nothing.", data=("sample.data",), methods=("core.head",),
             published_averages=(PublishedAverage(method="X", values={{{printed!r}: 1.0}}, source="a book"),))

def averages(scores):
    return {made}

@hookimpl
def peftx_tasks():
    yield TaskSpec("sample.task", "a task", "sample_method:Gain", "sample_config:GainConfig",
                   default_model="sample.net")

@hookimpl
def peftx_models():
    yield ModelSpec("sample.net", "a network", "sample_method:Gain")

@hookimpl
def peftx_datasets():
    yield DatasetSpec("sample.data", "a data set", "sample_method:Gain", licence="MIT")

@hookimpl
def peftx_suites():
    yield SuiteSpec("sample.grid", "a grid of nothing", "sample_plugin:GRID", averages={target!r})
"""
#: law -> what is wrong with the manifest
FAULTS = {
    "api": [{"api": ""}, {"api": "PEFTX_API = 2"}],
    "hooks": [{"more": "\n@hookimpl\ndef peftx_method():\n    return ()\n"},
              {"more": "\ndef peftx_step():\n    pass\n"}],
    "own_names": [{"name": "core.gain"}, {"name": "sample.Gain"}],
    "light": [{"top": "import torch"}, {"top": "import time; time.sleep(1.2)"}],
    "targets": [{"target": "sample_method:Nothing"}, {"target": "sample_config:GainConfig"},
                {"config": "sample_config:OtherConfig"}, {"kind": "model"}],
    "configs": [{"config_top": "import torch"}],
    "summaries": [{"summary": ""}, {"summary": "One sentence."}],
    "licence": [{"licence": ""}, {"distribution": ""}],
    "suites": [{"more": SUITE.format(target="sample_plugin:DEFAULTS", task="sample.task")},
               {"more": SUITE.format(target="sample_plugin:GRID", task="sample.task")},
               {"more": SUITE.format(target="sample_method:Gain", task="sample.task")}],
    "loads": [{"twice": True}, {"top": "raise RuntimeError('the licence server is down')"}],
}  # fmt: skip
CASES = [(law, fault) for law, faults in FAULTS.items() for fault in faults]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin of the domain `sample` as pip leaves it; modules and registry are forgotten afterwards."""

    def run(**faults):
        text = SOUND.format(**{**DEFAULTS, **{k: v for k, v in faults.items() if k in DEFAULTS}})
        (tmp_path / "sample_plugin.py").write_text(text)
        (tmp_path / "sample_config.py").write_text(CONFIG.format(top=faults.get("config_top", "")))
        (tmp_path / "sample_method.py").write_text(METHOD)
        for name in ("sample", "second") if faults.get("twice") else ("sample",):
            info = tmp_path / f"{name}-1.0.dist-info"
            info.mkdir()
            stated = faults.get("distribution", "License-Expression: MIT\n")
            (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{stated}")
            (info / "entry_points.txt").write_text("[peftx.plugins]\nsample = sample_plugin\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delenv("PEFTX_DISABLE_PLUGINS", raising=False)
        monkeypatch.setenv("PEFTX_PLUGINS", "core,sample,second")
        forget()
        return get_registry()

    yield run
    forget()
    for name in ("sample_plugin", "sample_config", "sample_method"):
        sys.modules.pop(name, None)
    from peftx.testing import fresh

    fresh._imported.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_imports():
    from peftx.testing import fresh

    fresh._imported.cache_clear()


def judged(name):
    """The plugin's own laws: what it declares is judged elsewhere."""
    return check(name, laws=[law.name for law in laws_of("plugin")])


@pytest.mark.parametrize(("law", "fault"), CASES, ids=[f"{law}-{'-'.join(fault)}" for law, fault in CASES])
def test_a_fault_of_a_plugin_is_found_by_its_law_alone(install, law, fault):
    install(**fault)
    report = judged("sample")
    assert report.broken_laws == (law,), report.render()
    assert all("\n" not in outcome.message and outcome.message for outcome in report.failed)


@pytest.mark.parametrize(
    ("made", "printed", "target", "message"),
    [
        ('{"mean": sum(scores.values())}', "mean", "sample_plugin:averages", ""),
        ('{"mean": 1.0}', "of all", "sample_plugin:averages", "a published average 'of all' of X, and makes mean"),
        ("{}", "mean", "sample_plugin:averages", "are {}, expected finite numbers by name"),
        ('{"mean": float("nan")}', "mean", "sample_plugin:averages", "expected finite numbers by name"),
        ("{}", "mean", "", "has published averages and makes none of its own"),
    ],
)  # fmt: skip
def test_averages_of_a_suite_are_figures_under_names_of_its_own(install, made, printed, target, message):
    install(more=AVERAGED.format(made=made, printed=printed, target=target))
    report = check("sample", laws=["suites"])
    assert report.ok is not bool(message), report.render()
    assert [outcome.message for outcome in report.failed if message not in outcome.message] == []


def test_a_sound_plugin_and_core_keep_every_law(install):
    install()
    for domain in ("sample", "core"):
        report = judged(domain)
        assert report.ok and not report.of("failed"), report.render()
        assert {one.law for one in report.of("skipped")} == {"suites"}, "neither declares one"


def test_a_domain_stands_for_all_it_declares(install):
    install()
    report = check("sample", laws=["api", "config"])
    assert [(one.kind, one.name, one.law) for one in report.outcomes] == [
        ("plugin", "sample", "api"),
        ("method", "sample.gain", "config"),
    ]
    with pytest.raises(UnknownNameError, match=r"Did you mean .*sample"):
        check("sampel")
