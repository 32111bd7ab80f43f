"""record.json: what it says, and what a damaged one is answered with."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

from peftx.errors import RunError
from peftx.plugins.registry import Registry
from peftx.runs import record as records


def test_versions_name_peftx_its_packs_and_torch(registry: Registry) -> None:
    found = records.versions(registry)
    assert found["toypack"] == "0.1"
    assert {"python", "peftx", "peftx-kernels", "torch", "accelerate", "safetensors"} <= found.keys()


def test_environment_names_the_device_and_threads() -> None:
    found = records.environment(torch.device("cpu"))
    assert found["device"] == "cpu" and found["threads"] == torch.get_num_threads()


def test_git_state(tmp_path: Path) -> None:
    assert records.git_state(tmp_path) is None
    run = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*run, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*run, "add", "a"], cwd=tmp_path, check=True)
    subprocess.run([*run, "commit", "-qm", "a"], cwd=tmp_path, check=True)
    clean = records.git_state(tmp_path)
    assert clean and len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert records.git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_figures_that_are_not_finite_become_null_and_the_rest_is_exact(tmp_path: Path) -> None:
    record = {"format": 1, "x": [0.1 + 0.2, math.nan, {"y": -math.inf}], "path": Path("a")}
    records.write(tmp_path, record)
    assert records.read(tmp_path) == {"format": 1, "x": [0.1 + 0.2, None, {"y": None}], "path": "a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": "x"}', "damaged"),
        (json.dumps({"format": records.FORMAT + 1}), "written by a later peftx"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(RunError, match=words) as caught:
        records.read(tmp_path)
    assert "record.json" in str(caught.value)


def test_no_folder_no_run_and_half_a_run_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder at"):
        records.read(tmp_path / "nowhere")
    with pytest.raises(RunError, match="not a run folder"):
        records.read(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunError, match="did not finish"):
        records.read(tmp_path)
