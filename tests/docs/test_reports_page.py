"""The code of docs/reports.md does what the page says, and its pictures are there and small."""

from __future__ import annotations

import json
import re
import struct
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftx.plugins.loader import PluginInfo
from peftx.plugins.registry import Entry
from peftx.report import RunSource, write_run
from peftx.report.panel import plugin_panels


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "reports.md").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder that was never run."""
    row = {"method": "core.lora", "metrics": {"test": {"accuracy": 97.5}}}
    record = {"format": 1, "status": "complete", "method": "core.lora", "primary": "accuracy", "rows": [row]}
    lines = [
        {"row": "core.lora", "event": "step", "step": n, "loss": 9.5 if n == 4 else 1 / n}
        for n in range(1, 9)
    ]
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record | {"units": {"accuracy": "%", "loss": "nats"}}))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_the_panel_of_the_page_is_shown_on_one(page, run, monkeypatch) -> None:
    (code,) = re.findall(r"<!-- example: panel -->\n```python\n(.*?)```", page, re.DOTALL)
    module = types.ModuleType("mine.plugin")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.plugin", module)
    (spec,) = module.peftx_panels()
    registry = SimpleNamespace(panels={spec.name: Entry(spec, PluginInfo("mine", "peftx-mine", "1.0"))})
    (panel,) = plugin_panels(registry, spec.on, RunSource.read(run))
    assert panel.title == "Highest losses" and 'data-value="9.5"' in panel.body_html
    assert "Five steps of the run&#x27;s own method." in write_run(run, registry).read_text("utf-8")


def test_the_python_of_the_page_runs(page, run, monkeypatch, capsys) -> None:
    (code,) = re.findall(r"## From Python\n\n```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(run.parents[1])
    exec(code, {})
    assert capsys.readouterr().out == "core.lora 97.5\n"
    assert (run / "report.html").is_file()


def test_its_pictures_are_1280_wide_and_below_300_kB(page, repository) -> None:
    names = re.findall(r"!\[[^\]]+\]\(images/(\S+)\)", page)
    assert len(names) == 4
    for name in names:
        data = (repository / "docs" / "images" / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) < 300_000, name
        assert struct.unpack(">I", data[16:20]) == (1280,), name
