"""The UEA and UCR archives of time series classification: a problem is a pair of files, NAME_TRAIN.ts and NAME_TEST.ts.

A. Bagnall et al., "The UEA multivariate time series classification archive, 2018", arXiv:1811.00075; H. A. Dau et al.,
"The UCR time series archive", 2019, arXiv:1810.07758. The archives' test file is the test split, and validation is
drawn from the train file. The files are brought by hand, from the pages of the archive, in its format ``.ts``; its
other one, ``.arff``, is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.errors import DataError
from peftx_timeseries.config.classification import UeaConfig
from peftx_timeseries.data.samples import make_samples
from peftx_timeseries.data.ts import TsFile, read_ts
from peftx_timeseries.series.samples import SampleSplit

__all__ = ["PROBLEMS", "Pair", "find", "load", "locate"]

_SOURCE = "https://www.timeseriesclassification.com/dataset.php"
_PAPER = "https://arxiv.org/abs/1811.00075"
_FILE = re.compile(r"(?P<name>.+)_(?P<part>TRAIN|TEST)\.ts(\.gz)?")
#: Folders in which problems are looked for below the data root.
_PLACES = (
    "",
    "uea",
    "UEA",
    "ucr",
    "UCR",
    "Multivariate_ts",
    "Univariate_ts",
    "all_datasets",
    "all_datasets/UEA",
)
#: The six problems of GPT4TS and One-for-All that this pack's suite has: samples to train and test on.
PROBLEMS = {
    "EthanolConcentration": (261, 263),
    "FaceDetection": (5890, 3524),
    "Heartbeat": (204, 205),
    "JapaneseVowels": (270, 370),
    "SelfRegulationSCP1": (268, 293),
    "SelfRegulationSCP2": (200, 180),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """The two files of a problem."""

    name: str
    train: Path
    test: Path


def locate(config: UeaConfig, ctx: DataContext) -> None:
    """Make sure that both files are there; see `find`."""
    find(config.path, ctx)


def load(config: UeaConfig, ctx: DataContext) -> Dataset:
    """Return the problem: official test split, validation from the train file.

    Raises:
        DataError: what `find` and `read_ts` raise, samples without classes, or test samples of another number of
            channels or of classes that the train file does not have.
    """
    pair = find(config.path, ctx)
    train, test = read_ts(pair.train), read_ts(pair.test)
    classes = train.header.classes
    for path, file in ((pair.train, train), (pair.test, test)):
        if not file.header.labelled:
            raise DataError(
                f"{path.name} has no classes (@classLabel true NAME ...), so nothing can be learnt"
            )
    places = {name: place for place, name in enumerate(classes)}
    strange = next((name for name in test.header.classes if name not in places), None)
    if strange is not None:
        raise DataError(
            f"{pair.test.name} has the class {strange!r}, which {pair.train.name} does not have "
            f"({', '.join(classes[:8])}): the files are of two problems"
        )
    published = None
    if pair.name in PROBLEMS:
        counts = dict(zip(("train+val", "test"), PROBLEMS[pair.name], strict=True))
        published = Published(counts, source=_PAPER)
    held = {"train": len(train.samples), "test": len(test.samples)}
    return make_samples(
        f"timeseries.uea:{config.path}",
        _split(train, places),
        _split(test, places),
        classes,
        config,
        source=_SOURCE if published else str(pair.train.parent),
        licence="as the page of the problem says" if published else "the files' own",
        notes=(f"{pair.name}: {pair.test.name} is the test split", *train.notes, *test.notes),
        verified=False,
        published=published,
        copy=compare_copy(published, held, None) if published else None,
    )


def find(path: Path, ctx: DataContext) -> Pair:
    """Return the two files of a problem, given by their folder, by one of them, or by its name below the data root.

    Raises:
        DataError: one of them is not there, there are several problems, or only ``.arff`` files.
    """
    root = ctx.checked_root()
    path = path.expanduser()
    given = [path] if path.is_absolute() or root is None else [path, root / path]
    for one in given:
        if one.is_file():
            return _of_file(one)
    folders = list(given)
    if root is not None and not path.is_absolute():
        folders += [root / top / place / path for top in ("", "timeseries") for place in _PLACES]
        folders += [root / top / place for top in ("", "timeseries") for place in _PLACES]
    for folder in folders:
        if folder.is_dir() and (found := _of_folder(folder, path.name, exact=folder.name != path.name)):
            return found
    arff = next((folder for folder in given if folder.is_dir() and any(folder.glob("*.arff"))), None)
    if arff is not None:
        raise DataError(f"{arff} holds .arff files, which are not read: get the problem in the format .ts")
    here = next((folder for folder in given if folder.is_dir()), None)
    if here is not None:
        raise DataError(f"{here} holds no NAME_TRAIN.ts, expected it and NAME_TEST.ts beside it")
    raise DataError(
        f"{path} is no folder, no file and no problem that is here: get {path.name}_TRAIN.ts and {path.name}_TEST.ts "
        f"from {_SOURCE}, and put them into {(root or Path('DATA')) / path.name}"
        + ("" if root else ", with --data-root DATA")
    )


def _of_file(path: Path) -> Pair:
    match = _FILE.fullmatch(path.name)
    if match is None:
        what = "is an .arff file, which is not read" if path.suffix.lower() == ".arff" else "is another file"
        raise DataError(f"{path} {what}: give NAME_TRAIN.ts or NAME_TEST.ts, or the folder of both")
    name = match["name"]
    return _pair(path.parent, name, path if match["part"] == "TRAIN" else None)


def _of_folder(folder: Path, name: str, *, exact: bool) -> Pair | None:
    """The problem of that name in a folder, or, unless `exact`, the only one there."""
    held = {
        match["name"]
        for file in folder.iterdir()
        if (match := _FILE.fullmatch(file.name)) and match["part"] == "TRAIN"
    }
    if name in held:
        return _pair(folder, name, None)
    if exact or not held:
        return None
    if len(held) > 1:
        raise DataError(
            f"{folder} holds several problems ({', '.join(sorted(held)[:6])}): give the file of one, such as "
            f"{folder / sorted(held)[0]}_TRAIN.ts"
        )
    return _pair(folder, held.pop(), None)


def _pair(folder: Path, name: str, train: Path | None) -> Pair:
    files = {}
    for part in ("TRAIN", "TEST"):
        candidates = [folder / f"{name}_{part}{suffix}" for suffix in (".ts", ".ts.gz")]
        found = next((one for one in candidates if one.is_file()), None)
        if found is None:
            raise DataError(
                f"{folder} has no {name}_{part}.ts, which belongs to the problem {name}: put it there"
            )
        files[part] = found
    return Pair(name, train or files["TRAIN"], files["TEST"])


def _split(file: TsFile, places: dict[str, int]) -> SampleSplit:
    """Samples of a file, with the classes counted as the train file counts them."""
    own = [places[name] for name in file.header.classes]
    labels = [own[one.label] for one in file.samples if one.label is not None]
    return SampleSplit([one.values for one in file.samples], labels)
