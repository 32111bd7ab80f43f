"""Laws of data sets: splits, indices, classes, what a card says, and that finding them is quick and safe."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np

from peftx.data.checks import check_dataset
from peftx.data.contract import Split
from peftx.testing.fresh import run_fresh
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.laws.options import check_options
from peftx.testing.subjects import DataSubject

__all__ = [
    "card",
    "classes",
    "data_config",
    "fingerprint",
    "indexing",
    "locating",
    "no_pickle",
    "offline",
    "published",
    "splits",
]

#: most samples of a split that are read to tell splits apart
MOST = 4000
#: a data set that is not there is an error within this many seconds
QUICK = 1.0

_LOCATE = """
import json, sys, tempfile
sys.path[:] = json.loads(sys.argv[1])
from pathlib import Path
from peftx.plugins.targets import load_target
from peftx.data.contract import DataContext
from peftx.errors import DataError, NetworkError
import socket
touched = []
real = socket.socket.connect
socket.socket.connect = lambda self, address: touched.append(str(address)) or real(self, address)
socket.getaddrinfo = lambda host, *a, **k: touched.append(str(host)) or (_ for _ in ()).throw(OSError("offline"))
locate = load_target(sys.argv[2])
schema = load_target(sys.argv[3]) if sys.argv[3] else None
config = schema(**json.loads(sys.argv[4])) if schema else None
found = {"outcome": "", "sentence": ""}
with tempfile.TemporaryDirectory() as cache:
    start = clock()
    try:
        locate(config, DataContext(None, Path(cache), offline=True))
    except (DataError, NetworkError) as error:
        found["sentence"] = str(error)
    except BaseException as error:
        found["outcome"] = f"{type(error).__name__}: {error}"
    found["seconds"] = clock() - start
found |= {"torch": "torch" in sys.modules, "touched": touched}
print("\\n" + json.dumps(found))
"""


@law("data set")
def data_config(subject: DataSubject) -> None:
    """The configuration imports no torch, survives JSON, and describes its options."""
    if not subject.spec.config:
        raise NotApplicable("it has no options")
    check_options(subject.entry.load("config"), lambda: subject.config)


@law("data set")
def locating(subject: DataSubject) -> None:
    """Files that are not there are one sentence within a second, without torch and without the network."""
    spec = subject.spec
    if not spec.locate:
        raise NotApplicable("it declares no locate, so its files are always there")
    _ = subject.config
    given = dict(subject.options) | ({"path": subject.entry.argument} if subject.entry.argument else {})
    found: dict[str, Any] = run_fresh(_LOCATE, spec.locate, spec.config, json.dumps(given, default=str))
    demand(
        not found["outcome"], f"locate raised {found['outcome']}; expected nothing, DataError or NetworkError"
    )
    demand(
        "\n" not in str(found["sentence"]).strip(), f"what it says is not one sentence: {found['sentence']}"
    )
    demand(not found["torch"], "locate imports torch")
    demand(
        not found["touched"],
        f"offline, locate tried to reach {found['touched'][0] if found['touched'] else ''}",
    )
    demand(
        float(found["seconds"]) < QUICK,
        f"locate took {float(found['seconds']):.1f} s in an empty folder, allowed is {QUICK:g} s",
    )


def _refusing(touched: list[str], what: Callable[..., str]) -> Callable[..., Any]:
    def refuse(*arguments: Any, **options: Any) -> Any:
        touched.append(what(*arguments))
        raise OSError("the network is switched off")

    return refuse


@contextmanager
def _no_network() -> Iterator[list[str]]:
    touched: list[str] = []
    with (
        mock.patch.object(
            socket.socket, "connect", _refusing(touched, lambda _, address, *rest: str(address))
        ),
        mock.patch.object(socket, "getaddrinfo", _refusing(touched, lambda host, *rest: str(host))),
    ):
        yield touched


@law("data set", needs=["locating"])
def offline(subject: DataSubject) -> None:
    """Told to stay offline, loading never tries to reach the network."""
    with _no_network() as touched:
        try:
            subject.load()
        finally:
            if touched:
                raise LawError(f"offline, it tried to reach {touched[0]}")


@law("data set")
def no_pickle(subject: DataSubject) -> None:
    """Loading runs no pickle, which could run anything."""
    ran: list[str] = []

    def caught(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            ran.append(name)
            return real(*arguments, **options)

        return call

    pickle, real_load = import_module("pickle"), np.load  # watched, never used

    def load(*arguments: Any, **options: Any) -> Any:
        if options.get("allow_pickle"):
            ran.append("numpy.load(allow_pickle=True)")
        return real_load(*arguments, **options)

    with (
        mock.patch.object(pickle, "load", caught("pickle.load", pickle.load)),
        mock.patch.object(pickle, "loads", caught("pickle.loads", pickle.loads)),
        mock.patch.object(np, "load", load),
    ):
        dataset = subject.load()
        for split in dataset.splits.values():
            if len(split):
                split[0]
    demand(not ran, f"it called {ran[0] if ran else ''}")


def _digest(sample: Any) -> str:
    """A digest of a sample's content, whatever it is made of."""
    found = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, tuple | list):
            for part in value:
                feed(part)
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                feed((str(key), value[key]))
        elif is_dataclass(value) and not isinstance(value, type):
            # its repr would shorten long arrays
            for field in fields(value):
                feed((field.name, getattr(value, field.name)))
        elif isinstance(value, str | bytes | int | float | bool | type(None)):
            found.update(repr(value).encode())
        else:
            array = np.asarray(value)
            found.update(repr((array.shape, str(array.dtype))).encode())
            found.update(array.tobytes() if array.dtype != object else repr(value).encode())

    feed(sample)
    return found.hexdigest()


def _some(split: Split[Any], most: int) -> list[int]:
    count = len(split)
    return list(range(count)) if count <= most else [index * count // most for index in range(most)]


@law("data set")
def splits(subject: DataSubject) -> None:
    """Splits hold samples, none of them twice, and loading again gives the same."""
    dataset = subject.dataset
    seen: dict[str, dict[str, int]] = {}
    for name, split in dataset.splits.items():
        demand(len(split) > 0, f"the split {name} is empty")
        seen[name] = {_digest(split[index]): index for index in _some(split, MOST)}
    names = list(seen)
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            common = seen[one].keys() & seen[other].keys()
            # photographs come twice in many a collection; a split that leaks is another thing
            allowed = 0.02 * min(len(seen[one]), len(seen[other]))
            demand(
                len(common) <= allowed,
                f"{len(common)} of the samples of {other} are in {one} as well",
            )
    again = subject.load()
    demand(
        {name: len(split) for name, split in again.splits.items()}
        == {name: len(split) for name, split in dataset.splits.items()},
        "loaded again, the splits have other sizes",
    )
    for name, split in dataset.splits.items():
        for index in _some(split, 50):
            demand(
                _digest(again.splits[name][index]) == _digest(split[index]),
                f"loaded again, sample {index} of {name} is another one",
            )


@law("data set", needs=["splits"])
def fingerprint(subject: DataSubject) -> None:
    """The fingerprint is the same whenever the data are, and another when the split is."""
    dataset = subject.dataset
    demand(
        isinstance(dataset.fingerprint, str) and len(dataset.fingerprint) >= 8,
        f"the fingerprint is {dataset.fingerprint!r}, expected a hex digest",
    )
    demand(subject.load().fingerprint == dataset.fingerprint, "loaded again, the fingerprint is another one")
    fields = getattr(subject.entry.load("config"), "model_fields", {}) if subject.spec.config else {}
    smaller = max(len(dataset.splits["train"]) // 2, 1)
    for option, value in (("limit_train", smaller), ("split_seed", 12345)):
        if option not in fields or option in subject.options:
            continue
        other = subject.load(**{option: value})
        moved = any(
            [_digest(split[index]) for index in _some(split, 50)]
            != [_digest(other.splits[name][index]) for index in _some(other.splits[name], 50)]
            for name, split in dataset.splits.items()
        )
        if moved:
            demand(
                other.fingerprint != dataset.fingerprint,
                f"with {option}={value} the splits are others and the fingerprint is the same",
            )


@law("data set")
def classes(subject: DataSubject) -> None:
    """Targets are indices of the classes, and `labels` agrees with the samples."""
    dataset = subject.dataset
    names = dataset.classes
    labelled = {name: split.labels for name, split in dataset.splits.items()}
    if not names and all(labels is None for labels in labelled.values()):
        raise NotApplicable("it has no classes")
    demand(all(isinstance(name, str) and name for name in names), "a class has no name")
    demand(len(set(names)) == len(names), "two classes have the same name")
    for name, labels in labelled.items():
        if labels is None:
            continue
        split = dataset.splits[name]
        demand(len(labels) == len(split), f"{name} has {len(split)} samples and {len(labels)} labels")
        low, high = int(min(labels)), int(max(labels))
        demand(
            low >= 0 and high < len(names),
            f"labels of {name} run from {low} to {high}, with {len(names)} classes they may from 0 to {len(names) - 1}",
        )
        for index in _some(split, 50):
            sample = split[index]
            if isinstance(sample, tuple | list) and len(sample) == 2:
                demand(
                    int(sample[1]) == int(labels[index]),
                    f"sample {index} of {name} has the target {sample[1]}, labels say {labels[index]}",
                )
    train = labelled["train"]
    if train is not None:
        absent = sorted(set(range(len(names))) - {int(label) for label in train})
        demand(not absent, f"the class {names[absent[0]] if absent else ''} has no sample to train on")


@law("data set")
def indexing(subject: DataSubject) -> None:
    """The same index gives the same sample, and one outside 0 .. len - 1 an IndexError."""
    for name, split in subject.dataset.splits.items():
        count = len(split)
        for index in (count, count + 5, -1):
            try:
                split[index]
            except IndexError:
                continue
            except Exception as error:
                raise LawError(
                    f"{name}[{index}] of {count} samples raised {type(error).__name__}, expected IndexError"
                ) from error
            raise LawError(f"{name}[{index}] of {count} samples gave one, expected IndexError")
        for index in {0, count // 2, count - 1}:
            demand(
                _digest(split[index]) == _digest(split[index]),
                f"{name}[{index}] gives another sample each time",
            )


@law("data set")
def card(subject: DataSubject) -> None:
    """The card says where the data come from, under which licence, and what its descriptor says."""
    held, spec = dict(subject.dataset.card), subject.spec
    try:
        json.dumps(held)
    except (TypeError, ValueError) as error:
        raise LawError(f"the card cannot be written as JSON: {error}") from error
    for field in ("licence", "source"):
        demand(held.get(field) or getattr(spec, field), f"neither card nor descriptor names a {field}")
    for flag in ("synthetic", "verified"):
        if flag in held:
            demand(
                bool(held[flag]) == getattr(spec, flag),
                f"the card says {flag} = {held[flag]}, the descriptor {getattr(spec, flag)}",
            )
    called = subject.dataset.name
    # what a parametric one adds is its argument, which it may spell in its own way
    bare = called.partition(":")[0] if spec.parametric else called
    demand(
        bare == subject.entry.name,
        f"the data set calls itself {called!r}, its descriptor {subject.entry.name!r}",
    )


@law("data set")
def published(subject: DataSubject) -> None:
    """Counts and classes are those its authors published."""
    dataset = subject.dataset
    if dataset.published is None:
        raise NotApplicable("its authors published no figures")
    if dataset.copy is not None and not dataset.copy.whole:
        raise NotApplicable(f"what was read is not the whole: {dataset.copy.detail}")
    if "limit_train" in subject.options:
        raise NotApplicable("limit_train leaves samples out")
    report = check_dataset(dataset, read_all=False)
    for check in report.checks:
        demand(check.ok, f"{check.what}: published {check.expected}, found {check.found}")
