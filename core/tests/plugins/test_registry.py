from __future__ import annotations

import warnings

import pytest

from peftx.errors import ConfigError, PluginError, UnknownNameError
from peftx.plugins import CATALOGUE, get_registry
from peftx.plugins.descriptors import MethodSpec
from peftx.plugins.manager import forget
from peftx.plugins.registry import Registry

TASKS = """
@hookimpl
def peftx_tasks():
    yield TaskSpec("{domain}.first", "", "a:B", "a:C")
    yield TaskSpec("{domain}.second", "", "a:B", "a:C")

@hookimpl
def peftx_datasets():
    yield DatasetSpec("{domain}.small", "", "a:B", aliases=("tiny",))
    yield DatasetSpec("{domain}.folder", "", "a:B", parametric=True)

@hookimpl
def peftx_models():
    yield ModelSpec("{domain}.net", "", "a:B")
"""


@pytest.fixture
def two(site) -> Registry:
    site.add("alpha", TASKS.format(domain="alpha")).add("beta", TASKS.format(domain="beta"))
    return site.registry()


def test_full_names_and_unique_bare_names_resolve(site, method):
    registry = site.add("mine", method("mine", "scale")).registry()
    assert registry.resolve_method("mine.scale").spec == registry.resolve_method("scale").spec
    assert registry.resolve_method("lora").name == "core.lora"


def test_an_ambiguous_bare_name_lists_the_candidates(two):
    with pytest.raises(UnknownNameError, match=r"ambiguous: alpha.net, beta.net; write the full name"):
        two.resolve_model("net")


def test_the_given_domain_goes_first(two):
    assert two.resolve_model("net", "beta").name == "beta.net"
    assert two.resolve_dataset("small", "beta").name == "beta.small"
    assert two.resolve_dataset("tiny", "alpha").name == "alpha.small"
    assert two.resolve_dataset("beta.tiny").name == "beta.small"


def test_a_domain_means_its_first_task(two):
    assert two.resolve_task("beta").name == "beta.first"
    assert two.resolve_task("second", "beta").name == "beta.second"


def test_core_has_no_task(two):
    with pytest.raises(UnknownNameError, match=r"domain core has methods but no task"):
        two.resolve_task("core")


def test_data_sets_take_an_argument_only_when_they_say_so(two):
    entry = two.resolve_dataset("folder:a:b", "alpha")
    assert (entry.name, entry.argument) == ("alpha.folder", "a:b")
    with pytest.raises(ConfigError, match=r"folder needs a path: write folder:PATH"):
        two.resolve_dataset("folder", "alpha")
    with pytest.raises(ConfigError, match=r"small takes no argument"):
        two.resolve_dataset("small:x", "alpha")


def test_an_unknown_name_lists_near_matches(two):
    with pytest.raises(UnknownNameError, match=r"no method is called 'lorra'\. Did you mean core.lora"):
        two.resolve_method("lorra")
    with pytest.raises(UnknownNameError, match=r"no data set is called 'zzz'\. Known: alpha.small"):
        two.resolve_dataset("zzz")


def test_the_name_of_a_pack_that_is_not_installed_names_the_pip_command(two):
    with pytest.raises(
        PluginError,
        match=r"vision.snella belongs to the pack vision.*`pip install \./kernels \./core \./plugins/vision`",
    ):
        two.resolve_method("vision.snella")
    with pytest.raises(PluginError, match=r"cifar10 belongs to the pack vision"):
        two.resolve_dataset("cifar10", "alpha")
    with pytest.raises(PluginError, match=r"peftx-speech is planned and cannot be installed yet"):
        two.resolve_task("speech")


def test_the_name_of_a_broken_plugin_gives_its_cause(site):
    registry = site.add("mine", "raise OSError('disk')", version="4.2").registry()
    with pytest.raises(
        PluginError, match=r"mine.scale: plugin mine \(peftx-mine 4.2\) did not load: OSError: disk"
    ):
        registry.resolve_method("mine.scale")
    with pytest.raises(UnknownNameError, match=r"Not loaded: mine; see `peftx plugins`"):
        registry.resolve_method("scale")


def test_the_name_of_a_blocked_or_contested_plugin_says_so(site, method):
    site.add("mine", method("mine"))
    with pytest.raises(PluginError, match=r"switched off by --no-plugin"):
        site.registry(disabled=["mine"]).resolve_method("mine.scale")
    site.add("mine", method("mine"), distribution="peftx-rival")
    with pytest.raises(PluginError, match=r"claimed by peftx-mine 1.0, peftx-rival 1.0"):
        site.registry().resolve_method("mine.scale")


def test_a_broken_vision_pack_is_not_called_missing(site):
    registry = site.add("vision", "raise OSError('disk')").registry()
    with pytest.raises(PluginError, match=r"did not load: OSError: disk"):
        registry.resolve_task("vision")
    assert "vision" not in [pack.domain for pack in registry.missing_packs()]


def test_a_target_that_cannot_be_imported_names_the_distribution(site, method):
    entry = site.add("mine", method("mine")).registry().resolve_method("scale")
    with pytest.raises(PluginError, match=r"cannot load mine.x:X of peftx-mine: ModuleNotFoundError"):
        entry.load()


def test_events_reach_listeners_and_survive_a_failing_one(site):
    site.add(
        "bad",
        """
        @hookimpl
        def peftx_step(step):
            raise ValueError(f"step {step}")
        """,
    )
    site.add(
        "good",
        """
        seen = []
        @hookimpl
        def peftx_step(metrics, run):
            seen.append((run, metrics["loss"]))
        """,
    )
    registry = site.registry()
    with pytest.warns(
        RuntimeWarning, match=r"plugin bad: peftx_step failed and is ignored \(ValueError: step 1\)"
    ):
        registry.events.fire("peftx_step", run="r", step=1, metrics={"loss": 2.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second failure is silent
        registry.events.fire("peftx_step", run="r", step=2, metrics={"loss": 1.0})
    import peftx_good_plugin

    assert peftx_good_plugin.seen == [("r", 2.0), ("r", 1.0)]
    assert registry.events.listened("peftx_step") and not registry.events.listened("peftx_evaluated")
    with pytest.raises(KeyError):
        registry.events.fire("peftx_nothing")


KERNEL = """
from peftx.plugins import KernelSpec

@hookimpl
def peftx_kernels():
    yield KernelSpec("{op}", "mine.fast", "mine.fast:linear")
"""


def test_kernels_of_a_plugin_reach_the_kernels_table(site, monkeypatch):
    from peftx_kernels import table

    monkeypatch.setitem(table._table, "lora_linear", dict(table._table["lora_linear"]))
    registry = site.add("mine", KERNEL.format(op="lora_linear")).registry()
    assert [(entry.spec.op, entry.name) for entry in registry.kernels] == [("lora_linear", "mine.fast")]
    assert "mine.fast" in table.tiers()["lora_linear"].available
    assert table.tiers()["lora_linear"].name != "mine.fast", "auto keeps the built-in choice"


def test_a_kernel_for_an_op_that_does_not_exist_breaks_its_plugin(site):
    info = site.add("mine", KERNEL.format(op="lora_liner")).info("mine")
    assert info.status == "broken" and "kernel mine.fast: no kernel op is called 'lora_liner'" in info.cause


def test_the_registry_is_cached_per_choice(monkeypatch):
    forget()
    monkeypatch.setenv("PEFTX_PLUGINS", "")
    first = get_registry()
    assert get_registry() is first
    assert get_registry(disabled=["core"]) is not first
    monkeypatch.setenv("PEFTX_DISABLE_PLUGINS", "all")
    assert get_registry() is not first
    assert list(first.methods) == [
        f"core.{name}" for name in ("full", "head", "bitfit", "lora", "rslora", "dora", "shira")
    ]
    forget()


def test_every_builtin_target_and_config_exists():
    for entry in get_registry(only=()).methods.values():
        assert isinstance(entry.spec, MethodSpec)
        assert entry.load("config").model_fields, entry.name
        assert entry.load() is not None, entry.name


def test_the_catalogue_says_how_to_get_each_pack():
    vision = CATALOGUE["vision"]
    assert vision.command == "`pip install ./kernels ./core ./plugins/vision` in a clone of peftx"
    assert all(pack.state in ("available", "planned") and pack.summary for pack in CATALOGUE.values())
