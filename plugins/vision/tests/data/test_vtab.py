"""Tasks of VTAB-1k: tiny tasks in the layout of folders and lists, and one sentence for each way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peftx.cli import main
from peftx.data import DataContext
from peftx.data.checks import check_dataset
from peftx.errors import DataError
from peftx_vision.config.data import VtabConfig
from peftx_vision.data.listed import read_lines
from peftx_vision.data.vtab import LISTS, load, locate
from peftx_vision.vtab import TASKS

COUNTS = {"train800": 24, "val200": 8, "test": 10}


def put(root: Path, task: str = "kitti", counts: dict[str, int] = COUNTS) -> Path:
    """A task: images whose red is their label, in `images/<part>/`, and the four lists."""
    folder = root / task
    classes = TASKS[task].classes
    lines: dict[str, list[str]] = {}
    for blue, (part, count) in enumerate(counts.items()):
        (folder / "images" / part).mkdir(parents=True)
        lines[part] = []
        for number in range(count):
            name, label = f"images/{part}/{number:06d}.png", number % classes
            Image.new("RGB", (16, 16), (label, number, blue)).save(folder / name)
            lines[part].append(f"{name} {label}")
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for part, written in lines.items():
        (folder / f"{part}.txt").write_text("\n".join(written) + "\n")
    return folder


def ctx(tmp_path: Path, root: Path | None = None) -> DataContext:
    return DataContext(root, tmp_path / "cache", offline=True)


def test_final_trains_on_all_and_has_no_validation_split(tmp_path: Path) -> None:
    put(tmp_path / "root")
    data = load(VtabConfig(path="kitti"), ctx(tmp_path, tmp_path / "root"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "test": 10}
    assert data.name == "vision.vtab:kitti" and data.classes == ("0", "1", "2", "3")
    for split in data.splits.values():
        assert [image.getpixel((0, 0))[0] for image, _ in split] == list(split.labels)  # type: ignore[arg-type]
        assert all(image.mode == "RGB" and image.size == (16, 16) for image, _ in split)
    assert {image.getpixel((0, 0))[2] for image, _ in data.splits["train"]} == {0, 1}
    assert {image.getpixel((0, 0))[2] for image, _ in data.splits["test"]} == {2}
    assert data.card["note"] == "VTAB-1k, group structured; train is train800val200.txt, test is test.txt"


def test_tune_never_opens_the_test_list(tmp_path: Path) -> None:
    folder = put(tmp_path / "root")
    for name in ("test.txt", "train800val200.txt"):
        (folder / name).unlink()
    tune = load(VtabConfig(path="kitti", split="tune"), ctx(tmp_path, tmp_path / "root"))
    assert {name: len(split) for name, split in tune.splits.items()} == {"train": 24, "val": 8}
    few = load(VtabConfig(path="kitti", split="tune", limit_train=4), ctx(tmp_path, tmp_path / "root"))
    assert np.bincount(few.splits["train"].labels).tolist() == [1] * 4  # type: ignore[arg-type]
    assert len(few.splits["val"]) == 8 and few.fingerprint != tune.fingerprint


@pytest.mark.parametrize("below", [".", "vtab-1k", "vtab", "cache/vision.vtab", "kitti itself"])
def test_where_a_task_is_looked_for(tmp_path: Path, below: str) -> None:
    if below == "kitti itself":
        root: Path | None = put(tmp_path / "other")
    else:
        put(tmp_path / below)
        root = None if below.startswith("cache") else tmp_path
    assert len(load(VtabConfig(path="kitti"), ctx(tmp_path, root)).splits["train"]) == 32


def test_the_check_knows_the_published_counts(tmp_path: Path) -> None:
    folder = put(tmp_path, "patch_camelyon", {"train800": 12, "val200": 4, "test": 4})
    report = check_dataset(load(VtabConfig(path="patch_camelyon"), ctx(tmp_path, tmp_path)))
    assert [check.what for check in report.checks if not check.ok] == ["samples in train"]
    assert {check.expected for check in report.checks if check.what == "samples in train"} == {"1,000"}
    lines = (folder / "train800.txt").read_text().splitlines()
    (folder / "train800.txt").write_text("\n".join(lines[index % 12] for index in range(800)))
    (folder / "val200.txt").write_text("\n".join(f"images/val200/00000{i % 4}.png 1" for i in range(200)))
    whole = load(VtabConfig(path="patch_camelyon", split="tune"), ctx(tmp_path, tmp_path))
    assert check_dataset(whole).ok
    assert report.copy == "partial copy: 16 of 1,000 samples in train"
    assert whole.copy is not None and whole.copy.kind == "counted"


@pytest.mark.parametrize("split", ["tune", "final"])
def test_the_laws_of_data_sets(tmp_path: Path, split: str) -> None:
    put(tmp_path, "patch_camelyon", {"train800": 800, "val200": 200, "test": 20})
    name = ["check", "vision.vtab:patch_camelyon", "--set", f"split={split}"]
    assert main([*name, "--data-root", str(tmp_path)]) == 0


def test_paths_with_spaces_and_other_white_space(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n./a b/1.jpg 0\r\nc.jpg\t1\n\n  d.jpg  2  \n", newline="")
    found = read_lines(tmp_path / "list.txt", 3)
    assert (found.files, found.labels) == (("a b/1.jpg", "c.jpg", "d.jpg"), (0, 1, 2))


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text())) and None


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncated_head(folder: Path) -> None:
    (folder / "images/test/000003.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (drop("train800val200.txt"), "kitti has no train800val200.txt; bring the data set with its lists"),
        (drop("test.txt"), "kitti has no test.txt; bring the data set with its lists"),
        (
            drop("images/test/000003.png"),
            "test.txt lists images/test/000003.png, but there is no such image in",
        ),
        (truncated_head, "images/test/000003.png is empty; remove or replace it"),
        (edit("test.txt", lambda text: text + "x.png 4"), "test.txt, line 11: the label 4 is outside 0 .. 3"),
        (edit("test.txt", lambda text: text + "x.png -1"), "line 11: the label -1 is outside 0 .. 3"),
        (edit("test.txt", lambda text: text + "x.png"), "line 11: expected a path and a label, got 'x.png'"),
        (edit("test.txt", lambda text: "x.png one\n" + text), "line 1: expected a path and a label"),
        (edit("test.txt", lambda text: "x.png 1.5\n" + text), "line 1: expected a path and a label"),
        (edit("test.txt", lambda text: "x.png " + "9" * 5000), "line 1: expected a path and a label"),
        (edit("test.txt", lambda text: "../x.png 1\n" + text), "line 1: the path '../x.png' leads outside"),
        (edit("test.txt", lambda text: "/x.png 1\n" + text), "line 1: the path '/x.png' leads outside"),
        (edit("test.txt", lambda text: "\n \n"), "test.txt lists no image"),
        (
            edit("test.txt", lambda text: text + "images/test/000001.png 3"),
            r"test.txt lists images/test/000001.png twice, with the labels 1 and 3 \(from 0\); keep one",
        ),
        (
            edit("test.txt", lambda text: text + "./images/val200/000001.png 1"),
            "test.txt lists images/val200/000001.png, which train800val200.txt lists too: .* in test or in train",
        ),
    ],
)
def test_one_sentence_for_each_way_to_be_wrong(
    tmp_path: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(put(tmp_path))
    with pytest.raises(DataError, match=sentence) as caught:
        load(VtabConfig(path="kitti"), ctx(tmp_path, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (put(tmp_path) / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot read the list .*test\.txt \(it is not text in UTF-8\)"):
        locate(VtabConfig(path="kitti"), ctx(tmp_path, tmp_path))


def test_a_truncated_jpeg_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = put(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = folder / "images" / "test" / "cut.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    edit("test.txt", lambda text: text + "images/test/cut.jpg 1\n")(folder)
    split = load(VtabConfig(path="kitti"), ctx(tmp_path, tmp_path)).splits["test"]
    with pytest.raises(DataError, match=r"cannot read the image .*cut\.jpg"):
        split[10]


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("cifr", "VTAB-1k has no task 'cifr'. Did you mean cifar"),
        ("zzz", "VTAB-1k has no task 'zzz'. Tasks are cifar, caltech101"),
        ("kitti", "vision.vtab:kitti is not there, and it cannot be downloaded: put its folder kitti"),
    ],
)
def test_tasks_that_cannot_be_had(tmp_path: Path, task: str, sentence: str) -> None:
    for root in (None, tmp_path):
        with pytest.raises(DataError, match=sentence) as caught:
            locate(VtabConfig(path=task), ctx(tmp_path, root))
        assert "\n" not in str(caught.value)


def test_a_folder_without_lists(tmp_path: Path) -> None:
    (tmp_path / "kitti").mkdir()
    with pytest.raises(DataError, match=r"vision.vtab:kitti: .*kitti has no train800.txt"):
        locate(VtabConfig(path="kitti", split="tune"), ctx(tmp_path, tmp_path))
    with pytest.raises(DataError, match="is not a folder"):
        locate(VtabConfig(path="kitti"), ctx(tmp_path, tmp_path / "nowhere"))
    assert set(LISTS) == {"tune", "final"}


def test_a_run_on_final_keeps_the_last_epoch_and_scores_the_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    command = (
        "run vision --method core.bitfit --data vtab:kitti --baselines core.head --train.epochs 2 --json"
    )
    assert main([*command.split(), "--data-root", "root", "--out", "out"]) == 0
    found = json.loads(capsys.readouterr().out)
    for row in found["rows"]:
        assert row["selected_on"] == "last epoch" and set(row["metrics"]) == {"test"}, row
    assert main(["merge", "out", "--out", "merged"]) == 0, "measured on what there is: training images"
    assert "0 of 32 predictions changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--patience=2", "patience counts validations"), ("--no-test", "nothing would be scored")],
)
def test_what_needs_a_validation_split_is_refused_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    sentence: str,
) -> None:
    put(tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    command = [
        "run",
        "vision",
        "--method",
        "core.head",
        "--data",
        "vtab:kitti",
        "--baselines",
        "none",
        option,
    ]
    assert main([*command, "--data-root", "root", "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert "vtab:kitti has no validation split" in told and sentence in told
    assert not (tmp_path / "out").exists()
