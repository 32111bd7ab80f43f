"""A disk that is too small, that fills up, or that cannot be written: said in time, and nothing is harmed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peftx.config.run import RunConfig
from peftx.errors import RunError
from peftx.plugins.registry import Registry
from peftx.runs import execute
from peftx.runs import folder as files
from peftx.training import Progress


def config(out: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": "toy",
            "method": {"name": "core.lora", "targets": ["glob:*fc1"]},
            "train": {"epochs": 3, "checkpoint": 0},
            "device": "cpu",
            "baselines": ["core.head"],
            "efficiency": False,
            "report": False,
            "out": out,
        }
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``disk("4m")``: a disk of that size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
            pytest.skip("only the superuser can mount a small disk")
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("this machine allows no mounting")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_said_before_training(
    registry: Registry, disk: Callable[[str], Path]
) -> None:
    folder = disk("256k")
    with pytest.raises(RunError, match=r"is on a disk with 0 MiB free, and this run needs about 1 MiB"):
        execute(config(folder / "run"), registry)
    assert not files.is_run(folder / "run")


class Filler(Progress):
    """Fills the disk to its last byte once the run has advanced so often."""

    def __init__(self, folder: Path, after: int) -> None:
        self.file, self.left = folder / "filler", after

    def advance(self, metrics: dict[str, float] | None = None) -> None:
        self.left -= 1
        if self.left == 0:
            with self.file.open("wb", buffering=0) as stream:
                for size in (2**16, 2**10, 1):
                    try:
                        while True:
                            stream.write(b"x" * size)
                    except OSError as error:
                        assert error.errno == errno.ENOSPC
            # whatever the run's own files have left of their last page
            stuffing = os.statvfs(self.file.parent)
            assert stuffing.f_bavail == 0


@pytest.mark.parametrize("after", [3, 18, 22])  # in the row, while it is scored, in the baseline
def test_a_disk_that_fills_up(
    registry: Registry, disk: Callable[[str], Path], tmp_path: Path, after: int
) -> None:
    folder = disk("3m")
    run = folder / "run"
    with pytest.raises(
        RunError, match=r"No space left on device.*; mend that and go on with `peftx run --resume"
    ):
        execute(config(run), registry, Filler(folder, after))
    for path in run.rglob("*.json"):
        json.loads(path.read_text())  # nothing is half there
    for line in (run / files.METRICS).read_text().splitlines():
        json.loads(line)
    assert not list(run.rglob("*.part")) and not list(run.rglob(".*.tmp"))
    (folder / "filler").unlink()
    done = execute(config(run), registry, resume=True)
    whole = execute(config(tmp_path / "whole"), registry)
    assert [row["metrics"] for row in done.rows] == [row["metrics"] for row in whole.rows]
    for name in (files.METRICS, "adapter/adapter.safetensors", files.DETAILS):
        assert (run / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_a_folder_that_may_not_be_written(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(RunError, match=r"cannot create the run folder .*Permission denied"):
        execute(config(tmp_path / "closed" / "run"), registry)


@pytest.mark.parametrize("name", [files.RECORD, files.METRICS, files.DETAILS])
def test_a_writer_that_fails(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The same without a disk of one's own: one file cannot be written from some moment on."""
    run = tmp_path / "run"
    text, line = files.write_text, files.append_line
    calls = 0

    def fail(path: Path) -> None:
        nonlocal calls
        calls += path.name == name
        if path.name == name and calls > 1 - (name == files.DETAILS):
            raise RunError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_text", lambda path, content: (fail(path), text(path, content)))
        patch.setattr(files, "append_line", lambda path, values: (fail(path), line(path, values)))
        with pytest.raises(RunError, match=f"cannot write .*{name}: No space left on device; mend that and"):
            execute(config(run), registry)
    done = execute(config(run), registry, resume=True)
    whole = execute(config(tmp_path / "whole"), registry)
    assert [row["metrics"] for row in done.rows] == [row["metrics"] for row in whole.rows]
    assert (run / files.METRICS).read_bytes() == (whole.folder / files.METRICS).read_bytes()
