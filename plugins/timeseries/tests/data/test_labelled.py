"""Folders of labelled series: four layouts, what is refused in one sentence, and what is never looked at."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peftx.data.contract import DataContext
from peftx.errors import DataError
from peftx_timeseries.config.anomaly import LabelledConfig
from peftx_timeseries.data.labelled import load, locate
from peftx_timeseries.series.marked import Marked

ROWS, TEST, CHANNELS = 50, 30, 3
TRAIN = np.random.default_rng(0).normal(size=(ROWS, CHANNELS)).round(4)
HELD = np.random.default_rng(1).normal(size=(TEST, CHANNELS)).round(4)
LABELS = (np.arange(TEST) // 5 == 2).astype(np.int8)


def as_csv(values: np.ndarray, names: str, times: bool = True) -> str:
    lines = [("timestamp_(min)," if times else "") + names]
    lines += [
        ",".join(([str(row)] if times else []) + [f"{v:g}" for v in one])
        for row, one in enumerate(np.atleast_2d(values))
    ]
    return "\n".join(lines) + "\n"


def write_csv(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(as_csv(TRAIN, "a,b,c"))
    (folder / "test.csv").write_text(as_csv(HELD, "a,b,c"))
    (folder / "test_label.csv").write_text(as_csv(LABELS[:, None], "label"))
    return folder


def write_npy(folder: Path, name: str = "MSL") -> Path:
    folder.mkdir(parents=True)
    np.save(folder / f"{name}_train.npy", TRAIN)
    np.save(folder / f"{name}_test.npy", HELD.astype(np.float32))
    np.save(folder / f"{name}_test_label.npy", LABELS.astype(bool))
    return folder


def write_swat(folder: Path) -> Path:
    folder.mkdir(parents=True)
    normal = np.column_stack([TRAIN, np.zeros(ROWS)])
    (folder / "swat_train2.csv").write_text(as_csv(normal, "FIT101,LIT101,MV101,Normal/Attack", times=False))
    (folder / "swat2.csv").write_text(
        as_csv(np.column_stack([HELD, LABELS]), "FIT101,LIT101,MV101,Normal/Attack", times=False)
    )
    return folder


def write_machines(folder: Path) -> Path:
    for part, values in (("train", TRAIN), ("test", HELD), ("test_label", LABELS[:, None])):
        (folder / part).mkdir(parents=True)
        for machine, shift in (("machine-1-10", 10.0), ("machine-1-2", 0.0)):
            moved = values if part == "test_label" else values + shift
            text = "\n".join(",".join(f"{v:g}" for v in row) for row in moved)
            (folder / part / f"{machine}.txt").write_text(text + "\n")
    return folder


WRITERS = {"csv": write_csv, "npy": write_npy, "swat": write_swat, "machines": write_machines}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_the_same_data_set(tmp_path: Path, ctx: DataContext, layout: str) -> None:
    folder = WRITERS[layout](tmp_path / "set")
    locate(LabelledConfig(path=folder), ctx)
    data = load(LabelledConfig(path=folder), ctx)
    train, val, test = (data.splits[split][0] for split in ("train", "val", "test"))
    assert (train.begin, train.end, val.begin, val.end, len(test)) == (0, 40, 40, 50, TEST)
    assert train.values == pytest.approx(TRAIN, abs=1e-5) and test.values == pytest.approx(HELD, abs=1e-5)
    assert isinstance(test, Marked) and test.labels is not None and test.labels.tolist() == LABELS.tolist()
    assert isinstance(train, Marked) and train.labels is None and val.labels is None
    assert data.card["verified"] is False and len(data.card["channels"]) == CHANNELS
    assert data.card["scaler"]["mean"][0] == pytest.approx(TRAIN[:40].mean(0), abs=1e-5)


def test_machines_are_series_of_their_own_in_the_order_of_their_numbers(
    tmp_path: Path, ctx: DataContext
) -> None:
    data = load(LabelledConfig(path=write_machines(tmp_path / "SMD")), ctx)
    assert [one.name for one in data.splits["test"]] == ["machine-1-2", "machine-1-10"]
    small, large = data.card["scaler"]["mean"]
    assert np.array(large) - np.array(small) == pytest.approx(10.0, abs=1e-6)
    assert data.card["ratio"] == 0.5  # of the protocol, by the folder's name


def test_a_folder_is_found_below_a_data_root(tmp_path: Path) -> None:
    write_npy(tmp_path / "dataset" / "MSL")
    ctx = DataContext(tmp_path, tmp_path / "cache", offline=True)
    data = load(LabelledConfig(path=Path("MSL")), ctx)
    assert data.name == "timeseries.labelled:MSL" and data.card["ratio"] == 2.0


def test_as_in_tslib_all_rows_may_be_trained_on(tmp_path: Path, ctx: DataContext) -> None:
    folder = write_csv(tmp_path / "PSM")
    data = load(LabelledConfig(path=folder, train_rows="all"), ctx)
    assert len(data.splits["train"][0]) == ROWS and len(data.splits["val"][0]) == 10
    assert data.card["scaler"]["mean"][0] == pytest.approx(TRAIN.mean(0), abs=1e-5)
    assert "trained on, too" in data.card["note"]
    assert data.fingerprint != load(LabelledConfig(path=folder), ctx).fingerprint


def test_missing_values_become_the_last_before_or_zero(tmp_path: Path, ctx: DataContext) -> None:
    folder = write_csv(tmp_path / "PSM")
    text = (folder / "train.csv").read_text().splitlines()
    for line, column in ((1, 1), (2, 1), (7, 2), (8, 2)):
        cells = text[line].split(",")
        cells[column] = ""
        text[line] = ",".join(cells)
    (folder / "train.csv").write_text("\n".join(text) + "\n")
    values = load(LabelledConfig(path=folder), ctx).splits["train"][0].values
    assert values[0, 0] == values[1, 0] == pytest.approx(TRAIN[2, 0])  # at the start: the first after it
    assert values[6, 1] == values[7, 1] == pytest.approx(TRAIN[5, 1])
    data = load(LabelledConfig(path=folder, missing="zero"), ctx)
    assert data.card["missing"] == "zero"  # for whoever reads a new table
    assert data.splits["train"][0].values[[0, 1, 6, 7], [0, 0, 1, 1]].tolist() == [0.0] * 4
    assert "4 missing values became 0" in data.card["note"]


def test_a_label_changes_the_fingerprint_and_no_statistics(tmp_path: Path, ctx: DataContext) -> None:
    folder = write_npy(tmp_path / "MSL")
    before = load(LabelledConfig(path=folder), ctx)
    np.save(folder / "MSL_test_label.npy", ~LABELS.astype(bool))
    after = load(LabelledConfig(path=folder), ctx)
    assert before.fingerprint != after.fingerprint and before.card["scaler"] == after.card["scaler"]


def test_words_may_be_labels(tmp_path: Path, ctx: DataContext) -> None:
    folder = write_swat(tmp_path / "SWaT")
    text = (folder / "swat2.csv").read_text().splitlines()
    text[1:] = [
        line[: line.rindex(",")] + (",Attack" if mark else ",Normal")
        for line, mark in zip(text[1:], LABELS, strict=True)
    ]
    (folder / "swat2.csv").write_text("\n".join(text) + "\n")
    found = load(LabelledConfig(path=folder), ctx).splits["test"][0]
    assert isinstance(found, Marked) and found.labels is not None and found.labels.tolist() == LABELS.tolist()


def broken_pickle(folder: Path) -> None:
    (folder / "MSL_test.npy").write_bytes(b"\x93NUMPY" + pickle.dumps([1]))


def objects(folder: Path) -> None:
    np.save(folder / "MSL_test.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("layout", "damage", "said"),
    [
        ("csv", lambda f: (f / "test_label.csv").unlink(), r"lacks test_label\.csv: expected train\.csv"),
        ("npy", lambda f: (f / "MSL_test.npy").unlink(), r"lacks MSL_test\.npy"),
        ("swat", lambda f: (f / "swat2.csv").unlink(), r"lacks swat2\.csv"),
        ("machines", lambda f: (f / "test" / "machine-1-2.txt").unlink(), r"has no test/machine-1-2\.txt"),
        (
            "csv",
            lambda f: (f / "test.csv").write_text(as_csv(HELD, "a,c,b")),
            r"other columns, or another order",
        ),
        (
            "csv",
            lambda f: (f / "train.csv").write_text(as_csv(TRAIN, "a,b,c", times=False)),
            r"called 'a'.*timestamp",
        ),
        (
            "csv",
            lambda f: (f / "test_label.csv").write_text(as_csv(LABELS[:-1, None], "label")),
            r"30 test rows and 29 labels",
        ),
        (
            "csv",
            lambda f: (f / "test_label.csv").write_text(as_csv(2.0 * LABELS[:, None], "label")),
            r"line 12 has '2' as its label",
        ),
        ("npy", broken_pickle, r"no array that can be read .* or holds pickled objects"),
        ("npy", objects, r"no array that can be read .* or holds pickled objects"),
        (
            "npy",
            lambda f: np.save(f / "MSL_test.npy", HELD[:, :2]),
            r"3 channels to train on and 2 to test on",
        ),
        ("npy", lambda f: np.save(f / "MSL_test.npy", HELD[:, 0]), r"shape \(30,\): rows by channels"),
        (
            "npy",
            lambda f: np.save(f / "MSL_test_label.npy", HELD),
            r"shape \(30, 3\): one label for each row",
        ),
        (
            "npy",
            lambda f: np.save(f / "MSL_train.npy", np.full((50, 3), np.inf)),
            r"training row 1 of 'c1' is inf, too large",
        ),
        (
            "npy",
            lambda f: np.save(f / "MSL_train.npy", np.full((50, 3), np.nan)),
            r"no training row of 'c1' has a value",
        ),
        ("npy", lambda f: np.save(f / "MSL_train.npy", np.array(["a"])), r"holds no array of numbers"),
        ("npy", lambda f: np.save(f / "MSL_train.npy", TRAIN[:1]), r"1 training rows are too few"),
        (
            "machines",
            lambda f: (f / "train" / "machine-1-2.txt").write_text("1,2,3\n1,2\n"),
            r"line 2 has 2 cells, and the first has 3",
        ),
        (
            "machines",
            lambda f: (f / "train" / "machine-1-2.txt").write_text("1,2,x\n"),
            r"line 1 holds a cell that is no number",
        ),
        ("machines", lambda f: (f / "train" / "machine-1-2.txt").write_text(""), r"is empty"),
        (
            "swat",
            lambda f: (f / "swat2.csv").write_text(
                (f / "swat2.csv").read_text().replace("FIT101,LIT101", " LIT101,FIT101")
            ),
            r"swat2\.csv has the columns of swat_train2\.csv in another order \(such as 'LIT101'\)",
        ),
        (
            "swat",
            lambda f: (f / "swat_train2.csv").write_text((f / "swat2.csv").read_text()),
            r"line 12 is labelled as anomalous",
        ),
    ],
)
def test_damage_is_one_sentence(
    tmp_path: Path, ctx: DataContext, layout: str, damage: Callable[[Path], object], said: str
) -> None:
    folder = WRITERS[layout](tmp_path / "MSL")
    damage(folder)
    with pytest.raises(DataError, match=said) as caught:
        load(LabelledConfig(path=folder), ctx)
    assert "\n" not in str(caught.value)


def test_a_folder_in_no_layout_or_in_several_is_refused(tmp_path: Path, ctx: DataContext) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"in none of the layouts.*train\.csv.*swat2\.csv"):
        locate(LabelledConfig(path=tmp_path / "empty"), ctx)
    with pytest.raises(DataError, match=r"no such folder"):
        locate(LabelledConfig(path=tmp_path / "nowhere"), ctx)
    folder = write_csv(tmp_path / "both")
    for name, values in (("train", TRAIN), ("test", HELD), ("test_label", LABELS)):
        np.save(folder / f"X_{name}.npy", values)
    with pytest.raises(DataError, match=r"several layouts \(csv, npy\): choose one with --data\.layout"):
        locate(LabelledConfig(path=folder), ctx)
    assert load(LabelledConfig(path=folder, layout="npy"), ctx).splits["test"][0].name == "X"
    with pytest.raises(DataError, match=r"lacks swat_train2\.csv, swat2\.csv: the layout swat is"):
        locate(LabelledConfig(path=folder, layout="swat"), ctx)


@pytest.mark.parametrize("layout", WRITERS)
def test_bytes_out_of_place_are_a_data_set_or_one_sentence(
    tmp_path: Path, ctx: DataContext, layout: str
) -> None:
    folder = WRITERS[layout](tmp_path / "set")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    draw = random.Random(layout)
    outcomes = set()
    for _ in range(60):
        path = draw.choice(files)
        whole = path.read_bytes()
        found = bytearray(whole)
        for _ in range(draw.choice([1, 3])):
            at = draw.randrange(len(found))
            if draw.random() < 0.5:
                found[at : at + draw.choice([1, 50])] = b""
            else:
                found[at : at + 1] = draw.choice([b"\0", b",", b"\n", b"nan", b"\xff", b"9" * 40, b'"'])
        path.write_bytes(bytes(found))
        try:
            load(LabelledConfig(path=folder), ctx)
            outcomes.add("read")
        except DataError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
        path.write_bytes(whole)
    assert "refused" in outcomes


def test_the_configuration_reads_its_own_json() -> None:
    config = LabelledConfig(path=Path("PSM"), layout="csv", missing="zero")
    assert LabelledConfig.model_validate_json(config.model_dump_json()) == config
