"""What a record says of where the run came from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from peftx.plugins.registry import Registry
from peftx.runs import provenance
from peftx.training import Backend


def test_versions_name_peftx_its_packs_and_torch(registry: Registry) -> None:
    found = provenance.versions(registry)
    assert found["toypack"] == "0.1"
    assert {"python", "peftx", "peftx-kernels", "torch", "accelerate", "safetensors"} <= found.keys()


def test_environment_names_the_device_and_threads() -> None:
    found = provenance.environment(Backend("cpu"))
    assert (
        found["device"] == "cpu" and found["processes"] == 1 and found["threads"] == torch.get_num_threads()
    )


def test_git_state(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) is None
    run = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*run, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*run, "add", "a"], cwd=tmp_path, check=True)
    subprocess.run([*run, "commit", "-qm", "a"], cwd=tmp_path, check=True)
    clean = provenance.git_state(tmp_path)
    assert clean and len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": clean["commit"], "dirty": True}
