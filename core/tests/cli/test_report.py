"""`peftx report`: which page is written, where, and what is said of folders that have none."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_page_of_a_run_is_written_into_its_folder(peftx, write_run, tmp_path) -> None:
    folder = write_run(tmp_path / "runs" / "a")
    status, out, err = peftx("report", "runs/a")
    assert (status, err) == (0, "")
    assert out == f"{Path('runs/a/report.html')}\n"
    assert "core.lora" in (folder / "report.html").read_text("utf-8")


def test_it_may_be_written_elsewhere_and_told_as_json(peftx, write_run, tmp_path) -> None:
    write_run(tmp_path / "a")
    status, out, _ = peftx("report", "a", "--out", "page.html", "--json")
    assert status == 0 and json.loads(out) == {"folder": "a", "report": "page.html"}
    assert (tmp_path / "page.html").is_file() and not (tmp_path / "a" / "report.html").exists()


def test_it_may_be_written_without_samples(peftx, write_run, tmp_path, monkeypatch) -> None:
    write_run(tmp_path / "a")
    asked, module = [], importlib.import_module("peftx.report")
    real = module.write_run
    monkeypatch.setattr(module, "write_run", lambda *a, **k: asked.append(k["samples"]) or real(*a, **k))
    assert peftx("report", "a")[0] == 0 and peftx("report", "a", "--no-samples")[0] == 0
    assert asked == [True, False]


def test_a_file_that_is_no_page_is_left_alone(peftx, write_run, tmp_path) -> None:
    record = write_run(tmp_path / "a") / "record.json"
    before = record.read_bytes()
    status, _, err = peftx("report", "a", "--out", "a/record.json")
    assert status == 2 and "--out a/record.json is a file of another kind" in err
    assert record.read_bytes() == before
    for _ in range(2):  # its own page is written again
        assert peftx("report", "a", "--out", "page.html")[0] == 0


def test_a_run_that_failed_has_a_page(peftx, write_run, tmp_path) -> None:
    folder = write_run(tmp_path / "a", status="failed", error="after step 12 the loss is nan")
    assert peftx("report", "a")[0] == 0
    assert "after step 12 the loss is nan" in (folder / "report.html").read_text("utf-8")


def test_a_folder_with_a_bench_gets_the_page_of_the_bench(peftx, tmp_path) -> None:
    bench = {"format": 1, "suite": "toy.quick", "about": "all of it", "options": {}, "cells": []}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "bench.json").write_text(json.dumps(bench))
    status, out, err = peftx("report", "b")
    assert status == 0, err
    assert "toy.quick" in Path(out.strip()).read_text("utf-8")


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        ([], ["nothing"], "no folder at nothing: name the folder of a run or of a bench"),
        (["empty"], ["empty"], "empty holds neither a run (record.json) nor a bench (bench.json)"),
        (["run", "out"], ["run", "--out", "out"], "--out out is a folder; name a file"),
        (
            ["run"],
            ["run", "--out", "no/such/page.html"],
            "cannot write no/such/page.html: No such file or directory",
        ),
    ],
)
def test_what_has_no_page_is_one_sentence(peftx, write_run, tmp_path, make, arguments, sentence) -> None:
    for name in make:
        (tmp_path / name).mkdir()
        if name == "run":
            write_run(tmp_path / name)
    status, out, err = peftx("report", *arguments)
    assert status == 2 and out == ""
    assert f"error: {sentence}" in err and "Traceback" not in err


def test_a_damaged_record_is_one_sentence(peftx, tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text("{")
    status, _, err = peftx("report", "a")
    assert status == 2 and "record.json is damaged" in err


def test_neither_the_page_nor_its_panels_import_anything_heavy(write_run, tmp_path) -> None:
    """With every installed pack and its panels."""
    write_run(tmp_path / "a")
    program = (
        "import sys; from peftx.cli import main; status = main(['report', 'a']); "
        "print(status, [m for m in ('torch', 'numpy', 'timm', 'rich', 'jinja2') if m in sys.modules])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PEFTX_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
