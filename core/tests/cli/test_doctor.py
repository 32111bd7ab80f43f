from __future__ import annotations

import json

import pytest

from peftx.cli.commands import doctor
from peftx.cli.probing import Probe, probe_all


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Put modules where a probe's process finds them."""

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return write


def test_a_sound_module_is_probed_with_its_version(library):
    library("probe_sound", "__version__ = '1.2'")
    probe = probe_all(["probe_sound"])["probe_sound"]
    assert (probe.ok, probe.version, probe.torch) == (True, "1.2", False)


def test_the_root_of_a_chain_is_the_cause(library):
    library(
        "probe_chain",
        "try:\n    try:\n        raise RuntimeError('CUDA 13.2 whereas 13.0')\n    except Exception as e:\n"
        "        raise OSError('middle') from e\n"
        "except Exception as e:\n    raise ModuleNotFoundError('ViTModel') from e\n",
    )
    probe = probe_all(["probe_chain"])["probe_chain"]
    assert not probe.ok and not probe.missing
    assert probe.cause == "RuntimeError: CUDA 13.2 whereas 13.0"


def test_what_is_not_installed_is_missing_and_what_lacks_a_part_is_not(library):
    library("probe_part", "import probe_other_part")
    found = probe_all(["probe_part", "probe_gone"])
    assert found["probe_gone"].missing and not found["probe_part"].missing
    assert "probe_other_part" in found["probe_part"].cause


def test_a_crash_or_a_hang_is_a_finding(library):
    library("probe_crash", "import os; os._exit(11)")
    library("probe_hang", "import time; time.sleep(60)")
    assert probe_all(["probe_crash"])["probe_crash"].cause == "the import ended the process with status 11"
    assert "did not end within" in probe_all(["probe_hang"], timeout=0.5)["probe_hang"].cause


def test_noise_on_stdout_is_no_matter(library):
    library("probe_noisy", "print('{not json'); __version__ = '3'")
    assert probe_all(["probe_noisy"])["probe_noisy"].version == "3"


@pytest.fixture
def probed(monkeypatch):
    """Answer for the libraries without importing them."""
    answers = {name: Probe(name, ok=True, version="1.0") for name in doctor.LIBRARIES}
    monkeypatch.setattr(
        "peftx.cli.probing.probe_all", lambda names, **_: {n: answers[n] for n in names if n in answers}
    )
    return answers


def report(peftx, *arguments):
    status, out, _ = peftx("doctor", "--json", *arguments)
    return status, {row["what"]: (row["status"], row["detail"]) for row in json.loads(out)}


def test_a_sound_installation_exits_0(peftx, probed):
    probed["torchaudio"] = Probe("torchaudio", ok=False, missing=True, cause="gone")
    status, found = report(peftx)
    assert status == 0
    assert found["torch"][0] == "ok" and found["plugin toy"] == ("ok", "peftx-toy 1.0")
    assert found["torchaudio"] == ("absent", "not installed (optional)")
    assert found["data cache"][0] == "ok" and found["PEFTX_DATA"][0] == "ok"


def test_a_broken_library_is_named_with_its_root_cause(peftx, probed):
    probed["transformers"] = Probe("transformers", ok=False, cause="RuntimeError: CUDA 13.2 whereas 13.0")
    status, found = report(peftx)
    assert status == 1 and found["transformers"] == ("broken", "RuntimeError: CUDA 13.2 whereas 13.0")
    status, out, _ = peftx("doctor")
    assert status == 1 and out.endswith("1 broken, 0 warnings\n")


def test_a_missing_required_library_is_broken(peftx, probed):
    probed["torch"] = Probe("torch", ok=False, missing=True, cause="gone")
    status, found = report(peftx)
    assert status == 1 and found["torch"] == ("broken", "not installed")


def test_a_broken_plugin_is_broken_and_a_blocked_one_is_not(peftx, probed, toy):
    assert report(peftx, "--no-plugin", "toy")[1]["plugin toy"][0] == "ok"
    (toy / "toy_plugin.py").write_text("import nowhere_at_all\n")
    import sys

    from peftx.plugins.manager import forget

    forget()
    sys.modules.pop("toy_plugin", None)
    status, found = report(peftx)
    assert status == 1 and found["plugin toy"][0] == "broken" and "nowhere_at_all" in found["plugin toy"][1]


def test_unknown_variables_and_unwritable_folders_are_found(peftx, probed, monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTX_OFLINE", "1")
    monkeypatch.setenv("PEFTX_DISABLE_PLUGINS", "tyo")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTX_DATA", str(tmp_path / "file" / "cache"))
    status, found = report(peftx)
    assert found["PEFTX_OFLINE"] == ("warn", "unknown variable. Did you mean PEFTX_OFFLINE?")
    assert found["PEFTX_DISABLE_PLUGINS"] == ("warn", "tyo: no plugin is called tyo")
    assert status == 1 and found["data cache"][0] == "broken" and "is a file" in found["data cache"][1]


def test_every_plugin_that_imports_torch_is_found_though_the_first_hides_the_others(monkeypatch):
    from types import SimpleNamespace

    from peftx.plugins.loader import PluginInfo

    infos = [
        PluginInfo("core", "peftx", "1"),
        PluginInfo("first", "a-first", "1", imports_torch=True, module="first_plugin"),
        PluginInfo("second", "a-second", "1", module="second_plugin"),
        PluginInfo("third", "a-third", "1", module="third_plugin"),
    ]
    answers = {"first_plugin": True, "second_plugin": True, "third_plugin": False}
    monkeypatch.setattr(
        "peftx.cli.probing.probe_all",
        lambda names, **_: {name: Probe(name, ok=True, torch=answers[name]) for name in names},
    )
    found = {finding.what: finding.status for finding in doctor.plugins(SimpleNamespace(plugins=infos))}
    assert found == {
        "plugin core": "ok",
        "plugin first": "warn",
        "plugin second": "warn",
        "plugin third": "ok",
    }


def ops():
    return {finding.what: (finding.status, finding.detail) for finding in doctor.kernels()}


def test_every_op_says_what_runs_and_why(monkeypatch):
    from peftx_kernels import table

    monkeypatch.setattr(table, "_setting", "auto,dora_linear=reference")
    monkeypatch.setattr(table, "why_no_triton", lambda: "there is no CUDA device")
    found = ops()
    assert found.keys() == {f"op {op}" for op in table._table}
    assert found["op lora_linear"] == (
        "ok",
        "eager: the fastest composition of library calls, because there is no CUDA device",
    )
    assert found["op dora_linear"] == ("ok", "reference: PEFTX_KERNELS=auto,dora_linear=reference")
    monkeypatch.setattr(table, "why_no_triton", lambda: "")
    monkeypatch.setattr(table, "interpreting", lambda: False)
    assert ops()["op lora_linear"][1].startswith("triton or eager: Triton kernels on CUDA tensors where")


def test_kernels_that_cannot_run_are_found(peftx, probed, monkeypatch):
    from peftx_kernels import table

    monkeypatch.setattr(table, "_setting", "triton")
    monkeypatch.setattr(table, "why_no_triton", lambda: "there is no CUDA device")
    status, found = report(peftx)
    what = [name for name in found if name.startswith(("op ", "kernels"))]
    assert status == 1 and what == ["kernels"] and found["kernels"][0] == "broken"
    assert found["kernels"][1].startswith("PEFTX_KERNELS asks for the Triton kernels of ")
    assert "but there is no CUDA device; set PEFTX_KERNELS=auto" in found["kernels"][1]


def test_a_wrong_choice_of_kernels_is_found(monkeypatch):
    from peftx_kernels import table

    monkeypatch.setattr(table, "_setting", "nonsense")
    (finding,) = doctor.kernels()
    assert finding.status == "broken" and "PEFTX_KERNELS=nonsense" in finding.detail


def test_a_torch_that_does_not_load_is_no_crash(monkeypatch):
    from peftx_kernels import table

    def broken():
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(table, "_setting", "auto")
    monkeypatch.setattr(table, "why_no_triton", broken)
    (finding,) = doctor.kernels()
    assert finding.status == "broken" and finding.detail.startswith("libcudart.so.13")
