"""A run's model and adapter leave it whole and measured, and come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from peftx import artifacts
from peftx.config.run import RunConfig
from peftx.errors import ArtifactError, RunError
from peftx.plugins.registry import Registry
from peftx.runs import execute, export_run, import_peft, peft_run
from peftx.runs.reload import rebuild, reopen
from peftx.runs.session import load_data, make_task
from peftx.training.seeds import seed_all


def _config(**changes: Any) -> RunConfig:
    base = {
        "task": "toy",
        "method": {"name": "core.lora", "targets": ["glob:*fc1"], "rank": 2},
        "train": {"epochs": 2},
        "device": "cpu",
        "baselines": [],
        "efficiency": False,
        "report": False,
    }
    return RunConfig.model_validate(base | changes)


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    return execute(_config(out=tmp_path / "run"), registry).folder


def _outputs(folder: Path, registry: Registry, state: Path | None = None) -> torch.Tensor:
    plan, _ = reopen(folder, registry)
    task = make_task(plan, load_data(plan))
    model = task.build_model()
    if state is None:
        _, model = rebuild(plan, task, folder)
    else:
        model.load_state_dict(load_file(state))
    batch = next(iter(task.batches("test", 16)))
    with torch.no_grad():
        return task.forward(model.eval(), batch)


def test_the_merged_model_answers_like_the_run(folder: Path, registry: Registry, tmp_path: Path) -> None:
    before = sorted(p.name for p in folder.iterdir())
    found = export_run(folder, tmp_path / "out", registry)
    assert found.form == "torch" and found.report.outputs[0].predictions == 30
    assert found.report.outputs[0].flipped == 0
    assert torch.allclose(_outputs(folder, registry, found.file), _outputs(folder, registry), atol=1e-5)
    assert sorted(p.name for p in folder.iterdir()) == before
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["adapters"] == ["default"]


def test_a_refusal_writes_nothing(folder: Path, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tolerance"):
        export_run(folder, tmp_path / "out", registry, tolerance=0.0)
    with pytest.raises(ArtifactError, match="whisper cannot make this"):
        export_run(folder, tmp_path / "out", registry, form="whisper")
    assert not (tmp_path / "out").exists()
    found = export_run(folder, tmp_path / "out", registry, tolerance=0.0, force=True)
    assert found.report.objection
    for write in (export_run, peft_run):
        with pytest.raises(ArtifactError, match="nothing is overwritten"):
            write(folder, tmp_path / "out", registry)
    with pytest.raises(RunError):
        export_run(tmp_path / "out", tmp_path / "new", registry)


def test_to_peft_and_back(folder: Path, registry: Registry, tmp_path: Path) -> None:
    place = peft_run(folder, tmp_path / "peft", registry)
    assert json.loads((place / "adapter_config.json").read_text())["target_modules"] == ["fc1"]
    adapted = import_peft(place, tmp_path / "ours", _config(), registry)
    assert adapted.attachment().method_name == "core.lora"
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == ["adapter.json", "adapter.safetensors"]
    plan, _ = reopen(folder, registry)
    task = make_task(plan, load_data(plan))
    seed_all(plan.config.seed, "model")  # the base an import builds is the one its configuration builds
    model = task.build_model().eval()
    artifacts.load(model, tmp_path / "ours")
    with torch.no_grad():
        mine = task.forward(model, next(iter(task.batches("test", 16))))
    assert torch.allclose(mine, _outputs(folder, registry), atol=1e-5)
    with pytest.raises(ArtifactError, match="nothing is overwritten"):
        import_peft(place, tmp_path / "ours", _config(), registry)
    with pytest.raises(ArtifactError, match="number of classes"):
        import_peft(place, tmp_path / "x", _config(data={"name": "points", "classes": 5}), registry)
    assert not (tmp_path / "x").exists()
