"""vision/vtab1k: its grid, what is said where tasks are missing, 800 and 200 images and then all, and both averages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Request, prepare, run
from peftx.bench.cells import Point
from peftx.cli import main
from peftx.config.suite import label, parse_label
from peftx.errors import DataError
from peftx.runs import record
from peftx_vision.suites import VTAB1K
from peftx_vision.suites.vtab1k import GROUPS_MEAN, TASKS_MEAN, averages
from peftx_vision.vtab import GROUPS, TASKS

Write = Callable[..., Path]
SMALL: dict[str, Any] = {
    "models": (parse_label("vision.vit_micro"),),
    "methods": (parse_label("core.head"),),
    "offline": True,
    "efficiency": False,
    "device": "cpu",
}


def asked(root: Path, **values: Any) -> Request:
    settings = {"suite": "vision/vtab1k", "data_root": root, "out": root.parent / "out"}
    return Request(**{**settings, **SMALL, **values})


# --- what was printed


@pytest.mark.parametrize(
    ("method", "task"),
    {
        **{"Full": 65.57, "Linear": 52.94, "Adapter": 71.44, "VPT-Shallow": 64.85, "VPT-Deep": 69.43},
        **{"BitFit": 62.05, "LoRA": 72.25, "AdaptFormer": 72.32, "SSF": 73.10, "NOAH": 73.25, "SCT": 73.59},
        **{"FacT": 73.23, "RepAdapter": 73.84, "Hydra": 74.21, "LST": 71.70, "DTL": 74.58, "HST": 75.99},
        **{"GPS": 75.18, "LAST": 74.15, "SNF": 74.10},
    }.items(),
)
def test_scores_are_copied_as_their_printed_mean_says(method: str, task: float) -> None:
    scores = {row.data: row.value for row in VTAB1K.published if row.method == method}
    assert averages(scores)[TASKS_MEAN] == pytest.approx(task, abs=0.0051)


@pytest.mark.parametrize(("method", "group", "task"), [("GPS", 77.47, 75.18), ("Full", 68.97, 65.57)])
def test_both_averages_of_printed_scores(method: str, group: float, task: float) -> None:
    scores = {row.data: row.value for row in VTAB1K.published if row.method == method}
    assert list(scores) == [label(one) for one in VTAB1K.data]
    found = averages(scores)
    assert list(found) == [GROUPS_MEAN, TASKS_MEAN, *GROUPS]
    assert (round(found[GROUPS_MEAN], 2), round(found[TASKS_MEAN], 2)) == (group, task)
    (printed,) = (row for row in VTAB1K.published_averages if row.method == method)
    assert printed.values == {name: round(value, 2) for name, value in found.items()}


def test_printed_group_means_give_the_printed_average() -> None:
    whole = [row for row in VTAB1K.published_averages if set(GROUPS) <= set(row.values)]
    assert len(whole) == 20 + 6
    for row in whole:
        mean = sum(row.values[group] for group in GROUPS) / 3
        assert mean == pytest.approx(row.values[GROUPS_MEAN], abs=0.06), row.method
        # the groups have 7, 4 and 8 tasks
        tasks = sum(size * row.values[group] for size, group in zip((7, 4, 8), GROUPS, strict=True)) / 19
        assert tasks == pytest.approx(row.values[TASKS_MEAN], abs=0.41), row.method


def test_fewer_tasks_have_no_average() -> None:
    with pytest.raises(DataError, match="take all 19 tasks; missing: cifar"):
        averages(dict.fromkeys((label(one) for one in VTAB1K.data[1:]), 50.0))


# --- the grid


def test_rates_are_searched_on_800_and_runs_train_on_all(vtab: Write) -> None:
    grid = prepare(asked(vtab(), search=())).grid
    assert [row.data for row in grid.rows] == [f"vision.vtab:{task}" for task in TASKS]
    for row in grid.rows:
        for cell in row.searches():
            plan = row.plan_of(cell)
            assert (plan.data_config.split, plan.config.test, cell.seed) == ("tune", False, 0)
        for cell in row.runs(Point(1e-3)):
            plan = row.plan_of(cell)
            assert (plan.data_config.split, plan.config.test) == ("final", True)
        assert (row.plan.config.train.epochs, row.plan.task_config.normalise) == (100, "imagenet")


def test_it_stands_on_the_network_of_the_papers(tmp_path: Path) -> None:
    (model,) = VTAB1K.models
    assert label(model) == "vit_base_patch16_224.orig_in21k drop_path=0.1"
    timm = pytest.importorskip("timm")
    assert model.name in timm.list_pretrained(model.name)


def test_missing_tasks_are_told_at_once_and_the_others_run(
    vtab: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = [task for task in TASKS if task not in ("svhn", "dmlab")]
    root = vtab(there)
    command = [
        "bench",
        "vision/vtab1k",
        "--data-root",
        str(root),
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
    ]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "error: 2 of the 19 data sets of this bench cannot be had: vision.vtab:svhn, vision.vtab:dmlab ("
    )
    assert len(told.splitlines()) == 1 and "put its folder svhn (with train800val200.txt) into" in told
    offered = told.rstrip().rpartition("--data ")[2]
    assert offered == ",".join(f"vision.vtab:{task}" for task in there)
    assert main([*command, "--data", offered]) == 0
    assert f"{17 * 12 * 3} cells" in capsys.readouterr().out


def test_a_task_whose_list_of_the_search_is_missing_is_told_where_one_searches(vtab: Write) -> None:
    root = vtab(["kitti", "dtd"])
    (root / "kitti" / "val200.txt").unlink()
    data = tuple(map(parse_label, ("vtab:kitti", "vtab:dtd")))
    prepare(asked(root, data=data))
    with pytest.raises(
        DataError, match=r"1 of the 2 data sets .*kitti has no val200.txt.*--data vision.vtab:dtd"
    ):
        prepare(asked(root, data=data, search=()))


def test_the_name_of_a_task_is_no_path_though_a_folder_of_that_name_is_here(
    vtab: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = vtab(["kitti"])
    monkeypatch.chdir(root)
    (row,) = prepare(asked(root, data=(parse_label("vtab:kitti"),))).grid.rows
    assert row.data == "vision.vtab:kitti" and row.plan.data_name == "vision.vtab:kitti"


# --- whole benches


@pytest.mark.slow
def test_a_search_on_the_tune_lists_and_runs_on_the_final_ones(vtab: Write) -> None:
    root = vtab(["kitti", "dtd"])
    data = tuple(map(parse_label, ("vtab:kitti", "vtab:dtd")))
    outcome = run(asked(root, data=data, search=(1e-3, 1e-2), seeds=2, train={"epochs": 2}))
    assert outcome.failed == [] and len(outcome.cells) == 2 * (2 + 2)
    for cell, _ in outcome.cells:
        found = record.read(root.parent / "out" / cell.folder)
        (row,) = found["rows"]
        if cell.search:
            assert found["data"]["sizes"] == {"train": 8, "val": 4} and set(row["metrics"]) == {"val"}
        else:
            assert found["data"]["sizes"] == {"train": 12, "test": 6} and set(row["metrics"]) == {"test"}
            assert row["selected_on"] == "last epoch" and row["last_epoch"]["epoch"] == 2
    (averages_,) = outcome.averages
    assert averages_.rows == () and "take all 19 data sets of the suite" in averages_.notes[0]
    assert "and 13 more" in averages_.notes[0]


@pytest.mark.slow
def test_all_nineteen_tasks_and_their_averages(
    vtab: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = vtab()
    command = (
        "bench vision/vtab1k --methods core.head --model vit_micro --seeds 1 --train.epochs 1 --device cpu "
    )
    command += "--no-efficiency --offline --published"
    words = [*command.split(), "--data-root", str(root), "--out", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (averaged,) = found["averages"]
    (own,) = averaged["rows"]
    scores = {cell["data"]: cell["value"] for cell in found["cells"]}
    assert len(scores) == 19 and own["label"] == "core.head" and own["seeds"] == [0]
    assert own["mean"] == pytest.approx(averages(scores))
    assert "no published averages beside these" in averaged["notes"][0], (
        "miniatures are no copies to compare with"
    )
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "averages over 19 data sets with vision.vit_micro: test accuracy, %" in told
    assert f"{own['mean'][GROUPS_MEAN]:.2f}" in told
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Averages over the data sets" in page and "mean of 19 tasks" in page
