from __future__ import annotations

import sys

import pytest

from peftx.plugins.loader import blocking


def test_core_comes_first_and_is_sound(site):
    (core,) = site.loaded()
    assert (core.info.domain, core.info.status, core.info.api) == ("core", "ok", 1)


def test_a_sound_plugin_is_loaded_with_its_distribution_and_version(site, method):
    info = site.add("mine", method("mine"), version="2.3").info("mine")
    assert (info.status, info.distribution, info.version, info.api) == ("ok", "peftx-mine", "2.3", 1)
    assert info.declared_api and not info.warnings and not info.slow


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise RuntimeError('no\\nlicence')", "RuntimeError: no licence"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        (
            "@hookimpl\ndef peftx_method(): return []",
            "unknown hook peftx_method. Did you mean peftx_methods",
        ),
        ("@hookimpl\ndef peftx_methods(what): return []", "Argument(s) {'what'}"),
        ("def peftx_methods(): return []", "function peftx_methods is not marked with @hookimpl"),
        ("@hookimpl\ndef peftx_tasks(): raise ValueError('later')", "peftx_tasks failed: ValueError: later"),
        ("@hookimpl\ndef peftx_tasks(): return 3", "peftx_tasks failed: TypeError"),
        ("@hookimpl\ndef peftx_tasks(): return ['mine.task']", "must yield TaskSpec, it yielded str"),
        ("@hookimpl(wrapper=True)\ndef peftx_methods():\n    return (yield)", "hook wrapper"),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('other.a', '', 'a:B', 'a:C')]",
            "peftx_methods declares 'other.a': a name here reads 'mine.name'",
        ),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('mine.A b', '', 'a:B', 'a:C')]",
            "declares 'mine.A b'",
        ),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('mine.a', '', 'a.B', 'a:C')]",
            "mine.a: target 'a.B' is malformed",
        ),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('mine.a', '', 'a:B', '')]",
            "mine.a: config '' is malformed",
        ),
        (
            "@hookimpl\ndef peftx_datasets(): return [DatasetSpec('mine.a', '', 'a:B', locate='here')]",
            "mine.a: locate 'here' is malformed",
        ),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('mine.a', '', 'a:B', 'a:C', kind='magic')]",
            "mine.a: kind 'magic' must be one of adapter, procedure, codec, model",
        ),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('mine.a', '', 'a:B', 'a:C')] * 2",
            "declares mine.a twice",
        ),
        (
            "@hookimpl\ndef peftx_datasets():\n    yield DatasetSpec('mine.a', '', 'a:B', aliases=('b',))\n"
            "    yield DatasetSpec('mine.b', '', 'a:B')",
            "declares mine.b twice",
        ),
        (
            "@hookimpl\ndef peftx_methods(): return [MethodSpec('mine.a', '', 'a:B', 'a:C', tasks=('mine.t',))]",
            "mine.a: only a model names the tasks",
        ),
        (
            "@hookimpl\ndef peftx_methods():\n    yield MethodSpec('mine.a', '', 'a:B', 'a:C', kind='model', "
            "tasks=('mine.tusk',))\n@hookimpl\ndef peftx_tasks(): return [TaskSpec('mine.task', '', 'a:B', 'a:C')]",
            "mine.a: there is no task 'mine.tusk' to compare it on. Did you mean mine.task",
        ),
        (
            "@hookimpl\ndef peftx_tasks(): return [TaskSpec('mine.t', '', 'a:B', 'a:C', reference='core.dora')]",
            "mine.t: its reference 'core.dora' is none of its baselines, core.head, core.lora, core.full",
        ),
        ("PEFTX_API = 'two'", "PEFTX_API must be a whole number, it is 'two'"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_listed_with_its_cause(site, method, source, cause):
    site.add("mine", source).add("other", method("other"))
    info = site.info("mine")
    assert info.status == "broken"
    assert cause in info.cause and "\n" not in info.cause
    registry = site.registry()
    assert "other.scale" in registry.methods and "core.lora" in registry.methods
    assert not any(name.startswith("mine.") for name in (*registry.methods, *registry.datasets))


def test_an_import_that_needs_another_peftx_says_so(site):
    info = site.add("mine", "from peftx.plugins import NoSuchSpec").info("mine")
    assert info.status == "broken" and "built for another one" in info.cause


def test_an_unusable_domain_name_is_broken(site):
    info = site.add("My.Domain", "", distribution="peftx-odd").info("My.Domain")
    assert info.status == "broken" and "is not a domain" in info.cause


def test_a_newer_api_is_refused_and_says_what_to_do(site, method):
    site.add("mine", method("mine"), api="PEFTX_API = 2")
    info = site.info("mine")
    assert info.status == "api"
    assert info.cause.startswith("built for plugin API 2, this peftx has 1; upgrade")
    assert "mine.scale" not in site.registry().methods


def test_an_older_api_is_warned_about_and_works(site, method):
    site.add("mine", method("mine"), api="PEFTX_API = 0")
    info = site.info("mine")
    assert info.status == "ok" and "built for plugin API 0" in info.warnings[0]
    assert "mine.scale" in site.registry().methods


def test_a_missing_api_number_counts_as_one_with_a_warning(site, method):
    info = site.add("mine", method("mine"), api="").info("mine")
    assert (info.status, info.api, info.declared_api) == ("ok", 1, False)
    assert "states no PEFTX_API" in info.warnings[0]


def test_two_claimants_of_a_domain_are_both_named_and_neither_loads(site, method):
    site.add("mine", method("mine"), distribution="peftx-first", version="1.1")
    site.add("mine", method("mine"), distribution="peftx-second", version="2.2")
    infos = [one.info for one in site.loaded() if one.info.domain == "mine"]
    assert [info.status for info in infos] == ["conflict", "conflict"]
    for info in infos:
        assert "peftx-first 1.1" in info.cause and "peftx-second 2.2" in info.cause
    assert not any(name in sys.modules for name in site.modules), (
        "a claimant in conflict must not be imported"
    )
    assert "core.lora" in site.registry().methods


def test_switching_one_claimant_off_by_its_distribution_settles_a_conflict(site, method):
    site.add("mine", method("mine"), distribution="peftx-first")
    site.add("mine", method("mine"), distribution="peftx-second")
    infos = [one.info for one in site.loaded(disabled=["peftx_second"]) if one.info.domain == "mine"]
    assert [(info.distribution, info.status) for info in infos] == [
        ("peftx-first", "ok"),
        ("peftx-second", "blocked"),
    ]


def test_nobody_else_may_claim_core(site, method):
    site.add("core", method("core"), distribution="peftx-rogue")
    statuses = {one.info.distribution: one.info.status for one in site.loaded()}
    assert statuses == {"peftx": "ok", "peftx-rogue": "conflict"}
    assert "core.scale" not in site.registry().methods


def test_blocked_plugins_are_not_imported(site, method):
    site.add("mine", method("mine"))
    info = site.info("mine", disabled=["mine"])
    assert (info.status, info.cause) == ("blocked", "switched off by --no-plugin")
    assert site.modules[0] not in sys.modules


@pytest.mark.parametrize("value", ["mine", " other, mine ", "all", "peftx-mine", "PEFTX_MINE"])
def test_plugins_are_switched_off_by_the_environment(site, method, value):
    site.add("mine", method("mine"))
    info = site.info("mine", environment={"PEFTX_DISABLE_PLUGINS": value})
    assert (info.status, info.cause) == ("blocked", "switched off by PEFTX_DISABLE_PLUGINS")


def test_the_whitelist_lets_only_named_plugins_in(site, method):
    site.add("mine", method("mine")).add("other", method("other"))
    environment = {"PEFTX_PLUGINS": "mine"}
    assert site.info("mine", environment=environment).status == "ok"
    blocked = site.info("other", environment=environment)
    assert (blocked.status, blocked.cause) == ("blocked", "not in PEFTX_PLUGINS")
    assert site.info("mine", environment={"PEFTX_PLUGINS": ""}).status == "blocked"
    assert site.info("core", environment={"PEFTX_PLUGINS": ""}).status == "ok"


def test_an_argument_replaces_the_whitelist_of_the_environment():
    chosen = blocking([], ["b"], {"PEFTX_PLUGINS": "a"})
    assert chosen.reason("b", "peftx-b") == "" and chosen.reason("a", "peftx-a")


def test_the_time_of_import_is_recorded_and_slow_ones_are_flagged(site, method, monkeypatch):
    monkeypatch.setattr("peftx.plugins.api.SLOW_SECONDS", 0.05)
    site.add("mine", "import time; time.sleep(0.1)").add("other", method("other"))
    infos = {one.info.domain: one.info for one in site.loaded()}
    assert infos["mine"].seconds >= 0.1 and infos["mine"].slow
    assert infos["other"].seconds < infos["mine"].seconds


def test_a_plugin_that_pulls_torch_in_is_recorded(site):
    real = {name: sys.modules.pop(name) for name in [*sys.modules] if name == "torch"}
    try:
        site.add("mine", "import sys; sys.modules.setdefault('torch', sys)").add("other", "")
        infos = {one.info.domain: one.info.imports_torch for one in site.loaded()}
    finally:
        sys.modules.pop("torch", None)
        sys.modules.update(real)
    assert infos == {"core": False, "mine": True, "other": False}


def test_what_a_plugin_prints_while_imported_goes_to_stderr(site, capsys):
    site.add("mine", "print('hello')").loaded()
    captured = capsys.readouterr()
    assert captured.out == "" and "hello" in captured.err


@pytest.mark.parametrize("metadata", [None, ""])
def test_a_half_removed_distribution_takes_nothing_down(site, method, metadata):
    site.add("mine", method("mine")).add("other", method("other"))
    file = site.folder / "peftx_mine-1.0.dist-info" / "METADATA"
    file.unlink() if metadata is None else file.write_text(metadata)
    infos = {one.info.domain: one.info for one in site.loaded()}
    assert infos["mine"].label == "? ?" and infos["other"].status == "ok"
