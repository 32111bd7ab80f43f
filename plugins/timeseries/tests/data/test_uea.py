"""Problems of the UEA and UCR archives: where they are found, their splits, and what a wrong pair of files is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftx.data.contract import DataContext
from peftx.errors import DataError
from peftx.testing import check
from peftx_timeseries.config.classification import UeaConfig
from peftx_timeseries.data.uea import PROBLEMS, find, load, locate

Write = Callable[..., Path]


def text(samples: int, classes: tuple[str, ...] = ("1", "2", "3"), dimensions: int = 2, seed: int = 0) -> str:
    """A file of samples of 4 to 7 steps, whose classes take turns."""
    draw = np.random.default_rng(seed)
    lines = [
        f"@problemName T\n@dimensions {dimensions}\n@equalLength false\n@classLabel true {' '.join(classes)}\n@data"
    ]
    for number in range(samples):
        steps = 4 + number % 4
        fields = [",".join(f"{v:.3f}" for v in draw.normal(size=steps)) for _ in range(dimensions)]
        lines.append(":".join([*fields, classes[number % len(classes)]]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def pair(write: Write) -> Path:
    """The folder of a problem called Small."""
    write(text(30), "Small/Small_TRAIN.ts")
    return write(text(12, seed=1), "Small/Small_TEST.ts").parent


def test_it_is_found_by_its_folder_by_either_file_and_by_its_name(
    pair: Path, write: Write, tmp_path: Path
) -> None:
    ctx = DataContext(tmp_path, tmp_path / "cache", offline=True)
    nowhere = DataContext(None, tmp_path / "cache", offline=True)
    given = [pair, pair / "Small_TRAIN.ts", pair / "Small_TEST.ts"]
    assert {find(path, nowhere).train for path in given} == {pair / "Small_TRAIN.ts"}
    assert (
        find(Path("Small"), ctx).test == find(Path("Small/Small_TEST.ts"), ctx).test == pair / "Small_TEST.ts"
    )
    for place in ("timeseries/uea/Deep", "Multivariate_ts/Wide", "uea"):
        name = {"uea": "Flat"}.get(place, Path(place).name)
        write(text(9), f"{place}/{name}_TRAIN.ts")
        write(text(9), f"{place}/{name}_TEST.ts")
        assert find(Path(name), ctx).name == name
    # beside another version of itself, the one of the folder's name
    write(text(9), "Small/Small_eq_TRAIN.ts")
    assert find(pair, ctx).name == "Small"


def test_what_is_not_there_is_told_in_a_sentence(pair: Path, write: Write, tmp_path: Path) -> None:
    ctx = DataContext(tmp_path, tmp_path / "cache", offline=True)
    write("", "old/Old_TRAIN.arff")
    write(text(9), "one/A_TRAIN.ts")
    for name in ("B", "C"):
        write(text(9), f"two/{name}_TRAIN.ts")
    (tmp_path / "empty").mkdir()
    for path, said in {
        "Nothing": "get Nothing_TRAIN.ts and Nothing_TEST.ts from https://",
        "old": ".arff files, which are not read",
        "old/Old_TRAIN.arff": "is an .arff file, which is not read",
        "one": "has no A_TEST.ts",
        "two": r"holds several problems \(B, C\): give the file of one",
        "empty": "holds no NAME_TRAIN.ts",
        "two/../data.csv": "is no folder, no file",
    }.items():
        with pytest.raises(DataError, match=said) as error:
            locate(UeaConfig(path=path), ctx)
        assert "\n" not in str(error.value)


def test_the_test_file_stays_the_test_and_validation_has_its_share_of_each_class(
    pair: Path, ctx: DataContext
) -> None:
    data = load(UeaConfig(path=pair), ctx)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "val": 6, "test": 12}
    assert data.classes == ("1", "2", "3") and np.bincount(data.splits["val"].labels).tolist() == [2, 2, 2]
    assert data.card["shape"] == {"channels": 2, "length": 7, "train": 24}
    assert "samples of 4 to 7 steps" in data.card["note"] and data.card["verified"] is False
    whole = load(UeaConfig(path=pair, val_fraction=0, limit_train=9), ctx)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 9, "test": 12}
    assert whole.fingerprint != data.fingerprint
    # statistics are those of the samples that are trained on
    rows = np.concatenate([one for one, _ in data.splits["train"]])
    np.testing.assert_allclose(data.card["scaler"]["mean"][0], rows.mean(0))
    np.testing.assert_allclose(data.card["scaler"]["std"][0], rows.std(0))


def test_classes_are_counted_as_the_train_file_counts_them(write: Write, ctx: DataContext) -> None:
    write(text(9, ("a", "b", "c")), "S/S_TRAIN.ts")
    write(text(9, ("c", "a"), seed=3), "S/S_TEST.ts")
    labels = load(UeaConfig(path=ctx.root / "S"), ctx).splits["test"].labels  # type: ignore[operator]
    assert labels.tolist() == [2, 0, 2, 0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (text(9), text(9, ("1", "4")), "S_TEST.ts has the class '4', which S_TRAIN.ts does not have"),
        (text(9), text(9, dimensions=3), "test sample 1 has 3 channels, and the first to train on has 2"),
        ("@data\n1,2\n", text(9), "S_TRAIN.ts has no classes"),
        (text(9, ("1",)), text(9, ("1",)), "has 1 class, and classification needs at least two"),
        (text(3), text(9), "has only 1 sample: too few to hold out"),
        ("@dimensions 2\n@classLabel true a b\n@data\n" + "1,2:?,?:a\n1,2:?,?:b\n" * 5, text(9, ("a", "b")),
         "channel 2 has no value in any of the 8 samples"),
    ],
)  # fmt: skip
def test_a_wrong_pair_is_told_in_a_sentence(
    write: Write, ctx: DataContext, train: str, test: str, said: str
) -> None:
    write(train, "S/S_TRAIN.ts")
    write(test, "S/S_TEST.ts")
    with pytest.raises(DataError, match=said) as error:
        load(UeaConfig(path=ctx.root / "S"), ctx)  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_a_part_of_a_published_problem_says_so(write: Write, ctx: DataContext) -> None:
    write(text(30), "Heartbeat/Heartbeat_TRAIN.ts")
    write(text(205), "Heartbeat/Heartbeat_TEST.ts")
    data = load(UeaConfig(path="Heartbeat"), ctx)
    assert data.copy is not None and data.copy.kind == "partial"
    assert "30 of 204 samples in train" in data.copy.detail and PROBLEMS["Heartbeat"] == (204, 205)


def test_it_keeps_the_laws(pair: Path) -> None:
    report = check(f"timeseries.uea:{pair}")
    assert report.ok and len(report.of("passed")) >= 8, report.render()


def test_a_configuration_reads_its_own_json_back() -> None:
    config: Any = UeaConfig(path="x", val_fraction=0.1, limit_train=20)
    assert UeaConfig.model_validate_json(config.model_dump_json()) == config
