"""Third-party plugins as they come: sound, broken, misspelt, rival, heavy, too new, slow. The rest always
works."""

from __future__ import annotations

import json

import pytest

SOUND = """
from peftx.plugins import MethodSpec, hookimpl

PEFTX_API = {api}
{extra}

@hookimpl
def {hook}():
    yield MethodSpec("{domain}.stretch", "one factor per row", "{package}.method:Stretch",
    "{package}.config:StretchConfig",
                     paper="none", licence="MIT", tags=("test",))
"""
CONFIG = """
from pydantic import Field

from peftx.config.adapter import AdapterConfig


class StretchConfig(AdapterConfig):
    '''Multiplies rows.'''

    start: float = Field(1.0, gt=0, description="first factor")
"""


def source(domain, package, *, api="1", hook="peftx_methods", extra=""):
    return SOUND.format(domain=domain, package=package, api=api, hook=hook, extra=extra)


@pytest.fixture(scope="module")
def installed(bench):
    """name -> folder of every plugin of this file."""
    config = {"config.py": CONFIG}
    return {
        "good": bench.install("acme-good", "good", source("good", "acme_good"), config, version="1.2.3"),
        "broken": bench.install(
            "acme-broken", "broken", "raise RuntimeError('the licence server is down')\n"
        ),
        "misspelt": bench.install(
            "acme-misspelt", "misspelt", source("misspelt", "acme_misspelt", hook="peftx_method")
        ),
        "rival": bench.install("acme-rival", "vision", source("vision", "acme_rival"), version="9.9"),
        "heavy": bench.install(
            "acme-heavy", "heavy", source("heavy", "acme_heavy", extra="import torch"), config
        ),
        "newer": bench.install("acme-newer", "newer", source("newer", "acme_newer", api="999")),
        "slow": bench.install(
            "acme-slow", "slow", source("slow", "acme_slow", extra="import time; time.sleep(1.6)"), config
        ),
    }


def status_of(bench, installed, name):
    """The row of `peftx plugins --json` for one of the plugins, installed alone."""
    rows = bench.json("plugins", plugins=[installed[name]])
    return next(row for row in rows if row["distribution"] == f"acme-{name}")


def assert_the_rest_works(bench, plugins, *, vision=True):
    done = bench.peftx("list", plugins=plugins)
    assert done.returncode == 0, done.stderr
    assert "core.lora" in done.stdout and "Traceback" not in done.stderr
    done = bench.peftx("run", "core.lora", "--help", plugins=plugins)
    assert done.returncode == 0 and "--rank" in done.stdout
    if vision:
        done = bench.peftx("run", "vision", "--method", "core.lora", "--dry-run", plugins=plugins)
        assert done.returncode == 0 and 'name = "vision.classification"' in done.stdout, done.stderr
    return True


def assert_refused(done, *causes):
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for cause in causes:
        assert cause in done.stderr


def test_a_good_plugin_is_there_with_its_version_and_options(bench, installed):
    row = status_of(bench, installed, "good")
    assert (row["domain"], row["version"], row["api"], row["status"]) == ("good", "1.2.3", 1, "ok")
    assert row["warnings"] == []
    good = [installed["good"]]
    assert_the_rest_works(bench, good)
    names = [method["name"] for method in bench.json("list", plugins=good)["methods"]]
    assert "good.stretch" in names
    for name in ("good.stretch", "stretch"):
        done = bench.peftx("run", "vision", "--method", name, "--start", "2", "--dry-run", plugins=good)
        assert done.returncode == 0, done.stderr
        assert 'name = "good.stretch"' in done.stdout and "start = 2.0" in done.stdout
    assert "--start" in bench.peftx("info", "good.stretch", plugins=good).stdout


def test_without_it_the_name_is_unknown(bench):
    assert_refused(
        bench.peftx("run", "vision", "--method", "good.stretch"), "no method is called 'good.stretch'"
    )


def test_one_that_raises_on_import_is_listed_with_its_cause(bench, installed):
    row = status_of(bench, installed, "broken")
    assert (row["status"], row["cause"]) == ("broken", "RuntimeError: the licence server is down")
    broken = [installed["broken"]]
    assert_the_rest_works(bench, broken)
    for target in ("broken", "broken.anything"):
        assert_refused(
            bench.peftx("run", target, plugins=broken), "acme-broken 1.0", "the licence server is down"
        )


def test_a_misspelt_hook_is_named_with_its_near_match(bench, installed):
    row = status_of(bench, installed, "misspelt")
    assert row["status"] == "broken"
    assert row["cause"].startswith("unknown hook peftx_method. Did you mean peftx_methods")
    assert_the_rest_works(bench, [installed["misspelt"]])
    assert_refused(
        bench.peftx("info", "misspelt.stretch", plugins=[installed["misspelt"]]), "unknown hook peftx_method"
    )


def test_a_second_claimant_of_vision_stops_both_and_nothing_else(bench, installed):
    rival = [installed["rival"]]
    rows = [row for row in bench.json("plugins", plugins=rival) if row["domain"] == "vision"]
    assert [row["status"] for row in rows] == ["conflict", "conflict"]
    for row in rows:
        assert "acme-rival 9.9" in row["cause"] and "peftx-vision 0.1.0" in row["cause"]
    assert_the_rest_works(bench, rival, vision=False)
    assert_refused(bench.peftx("run", "vision", plugins=rival), "acme-rival 9.9", "peftx-vision 0.1.0")
    done = bench.peftx("run", "vision", "--dry-run", "--no-plugin", "acme-rival", plugins=rival)
    assert done.returncode == 0, done.stderr
    done = bench.peftx("run", "vision", "--dry-run", plugins=rival, PEFTX_DISABLE_PLUGINS="acme-rival")
    assert done.returncode == 0, done.stderr


def test_one_for_a_newer_api_is_refused_and_says_what_to_do(bench, installed):
    row = status_of(bench, installed, "newer")
    assert row["status"] == "api" and "built for plugin API 999, this peftx has 1" in row["cause"]
    assert_the_rest_works(bench, [installed["newer"]])
    assert_refused(bench.peftx("run", "newer.stretch", plugins=[installed["newer"]]), "upgrade peftx")


def test_a_slow_one_works_and_is_reported(bench, installed):
    row = status_of(bench, installed, "slow")
    assert row["status"] == "ok" and row["slow"] and row["seconds"] >= 1.6
    assert any(warning.startswith("slow, its import took") for warning in row["warnings"])
    done = bench.peftx("list", plugins=[installed["slow"]])
    assert done.returncode == 0 and "slow.stretch" in done.stdout
    done = bench.peftx("list", "--no-plugin", "slow", plugins=[installed["slow"]])
    assert done.returncode == 0 and "slow.stretch" not in done.stdout


def test_doctor_reports_every_one_of_them(bench, installed):
    everything = [folder for name, folder in installed.items() if name != "rival"]
    done = bench.peftx("doctor", "--json", plugins=everything)
    assert done.returncode == 1, "broken plugins make doctor exit 1"
    found = {row["what"]: (row["status"], row["detail"]) for row in json.loads(done.stdout)}
    assert found["plugin good"] == ("ok", "acme-good 1.2.3")
    assert found["plugin vision"][0] == "ok"
    assert found["plugin broken"] == ("broken", "acme-broken 1.0: RuntimeError: the licence server is down")
    assert found["plugin misspelt"][0] == "broken" and found["plugin newer"][0] == "broken"
    status, detail = found["plugin heavy"]
    assert status == "warn" and "imports torch at the top" in detail
    status, detail = found["plugin slow"]
    assert status == "warn" and "slow" in detail and "torch" not in detail
    assert found["torch"][0] == "ok"


def test_the_whitelist_leaves_only_the_named(bench, installed):
    plugins = [installed["good"], installed["broken"]]
    rows = bench.json("plugins", plugins=plugins, PEFTX_PLUGINS="good")
    assert {row["domain"]: row["status"] for row in rows} == {
        "core": "ok",
        "good": "ok",
        "broken": "blocked",
        "vision": "blocked",
    }
