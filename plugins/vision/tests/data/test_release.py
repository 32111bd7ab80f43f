"""Released data sets: where they are looked for, how they get there, and what each loader makes of a tiny copy.

Files and labels are compared with those of torchvision's own classes on the same folders.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets as theirs

from peftx.cli import main
from peftx.data import DataContext, Dataset
from peftx.data.checks import check_dataset
from peftx.errors import DataError, NetworkError
from peftx_vision.config.data import DtdConfig, EuroSatConfig, Flowers102Config, TrainTestConfig

CONFIGS: Mapping[str, Any] = {
    "svhn": TrainTestConfig,
    "eurosat": EuroSatConfig,
    "dtd": DtdConfig,
    "flowers102": Flowers102Config,
    "oxford_pets": TrainTestConfig,
    "food101": TrainTestConfig,
}
every = pytest.mark.parametrize("tiny", list(CONFIGS), indirect=True)
packed = pytest.mark.parametrize("tiny", [name for name in CONFIGS if name != "svhn"], indirect=True)


def load(tiny: Any, root: Path | None = None, **options: Any) -> Dataset:
    context = DataContext(root, tiny.root.parent / "cache", offline=True)
    config = CONFIGS[tiny.name](**options)
    tiny.module.locate(config, context)
    return tiny.module.load(config, context)  # type: ignore[no-any-return]


def colours(data: Dataset, split: str) -> list[tuple[tuple[int, ...], int]]:
    """The first pixel and the label of every image."""
    return sorted(
        (tuple(int(value) for value in np.asarray(image)[0, 0]), label) for image, label in data.splits[split]
    )


def torchvision_class(tiny: Any, split: str) -> Any:
    """torchvision's own class on the same files, which it is not asked to compare with the official checksums."""
    made = {
        "svhn": ("SVHN", {"split": split}),
        "eurosat": ("EuroSAT", {}),
        "dtd": ("DTD", {"split": split}),
        "flowers102": ("Flowers102", {"split": split}),
        "oxford_pets": ("OxfordIIITPet", {"split": "trainval" if split == "train" else split}),
        "food101": ("Food101", {"split": split}),
    }
    name, options = made[tiny.name]
    kind = getattr(theirs, name)
    if hasattr(kind, "_check_integrity"):
        tiny.monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    return kind(tiny.folder if name == "SVHN" else tiny.root, download=False, **options)


@every
def test_the_images_and_labels_are_those_of_torchvision(tiny: Any) -> None:
    data = load(tiny, tiny.root)
    merged = {
        "svhn": {"train": ("train", "val"), "test": ("test",)},
        "eurosat": {"all": ("train", "val", "test")},
        "dtd": {name: (name,) for name in ("train", "val", "test")},
        "flowers102": {name: (name,) for name in ("train", "val", "test")},
    }.get(tiny.name, {"train": ("train", "val"), "test": ("test",)})
    for split, ours in merged.items():
        expected = sorted(
            (tuple(int(value) for value in np.asarray(image)[0, 0]), int(label))
            for image, label in torchvision_class(tiny, split)
        )
        assert sorted(pair for name in ours for pair in colours(data, name)) == expected
        assert {pixel[1] == label for pixel, label in expected} == {True}
    classes = getattr(torchvision_class(tiny, next(iter(merged))), "classes", data.classes)
    assert list(data.classes) == list(classes)


@every
def test_a_tiny_copy_is_a_partial_copy_and_called_so(tiny: Any) -> None:
    data = load(tiny, tiny.root)
    assert data.name == f"vision.{tiny.name}"
    assert data.copy is not None and data.copy.kind == "partial"
    assert all(" of " in clause for clause in data.copy.detail.split(", "))
    report = check_dataset(data)
    assert not report.ok and report.copy.startswith("partial copy: ")
    # what an option leaves out is no matter of the copy
    few = load(tiny, tiny.root, limit_train=tiny.classes)
    assert few.copy == data.copy and few.fingerprint != data.fingerprint
    assert len(few.splits["train"]) <= len(data.splits["train"])


@every
def test_counts_as_published_and_what_was_checked(tiny: Any) -> None:
    data = load(tiny, tiny.root)
    counts = {
        key: sum(len(data.splits[name]) for name in key.split("+")) for key in tiny.release.published.counts
    }
    published = replace(tiny.release.published, counts=counts, per_class={})
    tiny.monkeypatch.setattr(tiny.module, "RELEASE", replace(tiny.release, published=published))
    loose = load(tiny, tiny.root)
    assert check_dataset(loose).ok and loose.copy is not None
    assert loose.copy.kind == ("official" if tiny.name == "svhn" else "counted")
    tiny.pack(tiny.root.parent / "archives")
    unpacked = load(tiny, tiny.root.parent / "archives")
    assert unpacked.copy is not None and unpacked.copy.kind == "official"
    assert unpacked.fingerprint == loose.fingerprint


@packed
@pytest.mark.parametrize("place", ["root", "folder", "cache"])
def test_archives_are_found_and_unpacked_into_the_cache(tiny: Any, place: str) -> None:
    other = tiny.root.parent / "archives"
    cache = tiny.root.parent / "cache" / f"vision.{tiny.name}"
    tiny.pack({"root": other, "folder": other / tiny.release.folders[-1], "cache": cache}[place])
    data = load(tiny, None if place == "cache" else other)
    assert len(data.splits["train"]) and cache.is_dir()
    assert not list(cache.rglob("mask.png"))
    for archive in other.rglob("*.*"):
        if archive.suffix in (".gz", ".tgz", ".zip"):
            archive.unlink()  # not needed again
    if tiny.name != "flowers102":
        assert load(tiny, None).fingerprint == data.fingerprint


@every
def test_with_nothing_there_the_sentence_says_what_goes_where(tiny: Any) -> None:
    shutil.rmtree(tiny.root)
    tiny.root.mkdir()
    for root in (None, tiny.root):
        with pytest.raises(NetworkError, match="and the network is switched off; get it from http") as caught:
            load(tiny, root)
        assert "\n" not in str(caught.value) and f"cache/vision.{tiny.name}/" in str(caught.value)
    with pytest.raises(DataError, match=r"the data root .* is not a folder"):
        load(tiny, tiny.root / "nowhere")


@every
def test_a_part_that_is_missing_is_named(tiny: Any) -> None:
    parts = list(tiny.release.parts.values())
    gone = parts[-1]
    if gone.inside:
        shutil.rmtree(tiny.folder / gone.path)
    else:
        (tiny.folder / gone.path).unlink()
    if len(parts) == 1:
        with pytest.raises(NetworkError, match=gone.remote.name):
            load(tiny, tiny.root)
        return
    with pytest.raises(
        DataError, match=f"has no {gone.path}: the copy of vision.{tiny.name} is incomplete; get"
    ):
        load(tiny, tiny.root)


@pytest.mark.parametrize("tiny", ["oxford_pets"], indirect=True)
def test_a_packed_part_beside_an_unpacked_one(tiny: Any) -> None:
    tiny.pack(tiny.folder)
    (tiny.folder / "images.tar.gz").unlink()
    whole = load(tiny, tiny.root)
    shutil.rmtree(tiny.folder / "annotations")
    assert load(tiny, tiny.root).fingerprint == whole.fingerprint


@pytest.mark.parametrize("tiny", ["svhn", "flowers102"], indirect=True)
def test_an_altered_file_is_refused_also_where_another_lies_elsewhere(tiny: Any) -> None:
    singles = [part for part in tiny.release.parts.values() if not part.inside]
    first, last = singles[0], singles[-1]
    (tiny.folder / last.path).rename(tiny.root / last.remote.name)
    assert load(tiny, tiny.root).copy is not None
    path = tiny.folder / first.path
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=f"{first.remote.name} has md5 .* it is incomplete or altered"):
        load(tiny, tiny.root)


@pytest.mark.parametrize("tiny", ["dtd", "oxford_pets", "food101"], indirect=True)
def test_folders_of_common_names_in_a_root_are_somebody_elses(tiny: Any) -> None:
    """A root with images and labels is what YOLO has, not the textures."""
    with pytest.raises(NetworkError, match="the network is switched off"):
        load(tiny, tiny.folder.rename(tiny.root.parent / "mine"))


@every
def test_an_altered_archive_or_file_is_refused(tiny: Any) -> None:
    tiny.pack(tiny.root.parent / "archives")
    remote = next(iter(tiny.release.parts.values())).remote
    path = tiny.root.parent / "archives" / remote.name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{remote.name} has md5 .* it is incomplete or altered"):
        load(tiny, tiny.root.parent / "archives")


@packed
def test_an_image_that_is_missing_or_none(tiny: Any) -> None:
    image = min(tiny.folder.rglob("*.jpg"))
    image.write_text("hello")
    with pytest.raises(DataError, match=f"{image.name} is not an image of a known kind; remove or replace"):
        load(tiny, tiny.root)
    if tiny.name == "eurosat":  # which has no lists that would miss it
        return
    image.unlink()
    with pytest.raises(DataError, match=f"lists .*{image.name}, but there is no such image in"):
        load(tiny, tiny.root)


@pytest.mark.parametrize(
    "tiny",
    [name if name in ("svhn", "dtd") else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS],
    indirect=True,
)
def test_the_laws_of_data_sets(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"vision.{tiny.name}", "--data-root", str(tiny.root)]) == 0
    told = capsys.readouterr()
    assert "what was read is not the whole" in told.out + told.err
    assert main(["data", "check", tiny.name, "--data-root", str(tiny.root), "--offline"]) == 1
    assert "partial copy: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("tiny", ["eurosat"], indirect=True)
def test_a_run_on_a_partial_copy_is_named_after_it(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tiny.root.parent / "out"
    command = "run vision --method core.head --data eurosat --baselines none --train.epochs 1"
    assert (
        main([*command.split(), "--small-images=upscale", "--data-root", str(tiny.root), "--out", str(out)])
        == 0
    )
    sentence = "vision.eurosat is a partial copy: 50 of 27,000 samples in train+val+test; compare with no"
    told = capsys.readouterr()
    assert sentence in told.out + told.err
    record = json.loads((out / "record.json").read_text())
    assert record["data"]["name"] == "vision.eurosat (partial copy)"
    assert record["data"]["copy"]["kind"] == "partial"
    page = (out / "report.html").read_text()
    assert "partial copy" in page and "50 of 27,000 samples" in page
    assert main(["eval", str(out), "--data-root", str(tiny.root)]) == 0
    assert main(["results", str(out)]) == 0
    assert "partial copy" in capsys.readouterr().out
