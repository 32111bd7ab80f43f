"""`peftx merge`, `export` and `import`: what they hand on, what they print, and what they refuse before torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import peftx.runs


class _Report:
    def render(self):
        return "merged default"

    def to_dict(self):
        return {"adapters": ["default"]}


class _Found:
    def __init__(self, place):
        self.file, self.load, self.report = place / "model.safetensors", "load it so", _Report()

    def to_dict(self):
        return {"file": str(self.file), "report": self.report.to_dict()}


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("")
    return folder


@pytest.fixture
def exported(monkeypatch):
    """What `export_run` was called with."""
    seen = {}

    def export_run(folder, out, registry, **options):
        seen.update(folder=folder, out=out, **options)
        return _Found(Path(out))

    monkeypatch.setattr(peftx.runs, "export_run", export_run, raising=False)
    return seen


def test_merge_hands_its_options_on(peftx, run_folder, exported):
    status, out, _ = peftx("merge", run_folder, "--tolerance", "0.01", "--force")
    assert status == 0 and "merged default" in out and "load it: load it so" in out
    assert exported["out"] == run_folder / "merged" and exported["form"] == "torch"
    assert exported["tolerance"] == 0.01 and exported["force"] is True
    status, out, _ = peftx("merge", run_folder, "--out", run_folder / "x", "--json")
    assert json.loads(out)["file"] == str(run_folder / "x" / "model.safetensors")
    assert exported["tolerance"] is None and exported["force"] is False


def test_export_needs_to_know_what(peftx, run_folder, exported, monkeypatch):
    for flags in ([], ["--merged", "--to", "peft"]):
        status, _, err = peftx("export", run_folder, *flags)
        assert status == 2 and "say what to export" in err
    status, _, err = peftx("export", run_folder, "--to", "peft", "--force")
    assert status == 2 and "go with --merged" in err
    assert peftx("export", run_folder, "--to", "onnx")[0] == 2
    assert peftx("merge", run_folder, "--tolerance", "-1")[0] == 2
    assert not exported
    assert peftx("export", run_folder, "--merged", "--form", "timm")[0] == 0
    assert exported["form"] == "timm" and exported["out"] == run_folder / "exported"
    monkeypatch.setattr(peftx_runs(), "peft_run", lambda folder, out, registry: out, raising=False)
    status, out, _ = peftx("export", run_folder, "--to", "peft")
    assert status == 0 and "PeftModel.from_pretrained" in out
    assert json.loads(peftx("export", run_folder, "--to", "peft", "--json")[1])["form"] == "peft"


def peftx_runs():
    return peftx.runs


@pytest.mark.parametrize("command", [["merge"], ["export", "--merged"], ["export", "--to", "peft"]])
def test_what_is_no_run_is_refused(peftx, tmp_path, command):
    (tmp_path / "empty").mkdir()
    status, _, err = peftx(*command, tmp_path / "gone")
    assert (status, err) == (2, f"error: no run folder at {tmp_path / 'gone'}\n")
    assert "is not the folder of a run" in peftx(*command, tmp_path / "empty")[2]


def test_import_reads_the_folder_first(peftx, tmp_path):
    status, out, _ = peftx("import")
    assert status == 0 and "PEFT_DIR --model NAME" in out and "peftx import their-adapter" in out
    assert "the folder of the adapter comes first" in peftx("import", "--model", "net")[2]
    status, _, err = peftx("import", tmp_path / "gone", "--out", "x")
    assert status == 2 and "no folder" in err
    (tmp_path / "theirs").mkdir()
    status, _, err = peftx("import", tmp_path / "theirs", "--task", "sorting")
    assert status == 2 and "--out DIR" in err
    assert peftx("import", tmp_path / "theirs", "--colour", "red", "--out", "x")[0] == 2


def test_import_says_what_it_read(peftx, tmp_path, monkeypatch):
    class _Adapted:
        def attachment(self):
            return type("A", (), {"method_name": "core.dora", "plan": (1, 2)})

        def counts(self):
            return type("C", (), {"trainable": 1234})

    seen = {}

    def import_peft(folder, out, config, registry):
        seen.update(folder=folder, out=out, method=config.method.name)
        return _Adapted()

    monkeypatch.setattr(peftx_runs(), "import_peft", import_peft, raising=False)
    (tmp_path / "theirs").mkdir()
    status, out, _ = peftx("import", tmp_path / "theirs", "--task", "sorting", "--out", tmp_path / "ours")
    assert status == 0 and "read core.dora: 2 sites, 1,234 values" in out
    assert seen["folder"] == tmp_path / "theirs" and seen["out"] == tmp_path / "ours"
    status, out, _ = peftx(
        "import", tmp_path / "theirs", "--task", "sorting", "--out", tmp_path / "ours", "--json"
    )
    assert json.loads(out) == {
        "folder": str(tmp_path / "ours"),
        "method": "core.dora",
        "sites": 2,
        "trainable": 1234,
    }


@pytest.mark.parametrize("command", ["merge", "export", "import"])
def test_help_needs_no_torch(command):
    program = (
        "import sys\nfrom peftx.cli.main import main\n"
        f"status = main([{command!r}, '--help'])\nassert 'torch' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr
