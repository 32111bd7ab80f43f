"""The synthetic classes: the same everywhere, and no task for a linear map."""

from __future__ import annotations

import hashlib

import numpy as np

from peftx.data.contract import DataContext
from peftx.testing import check
from peftx_timeseries.config.classification import PatternsConfig
from peftx_timeseries.data.patterns import CLASSES, load
from peftx_timeseries.models.ridge import fit_ridge

CTX = DataContext.create(offline=True)


def test_they_keep_the_laws() -> None:
    report = check("timeseries.patterns")
    assert report.ok, report.render()


def test_they_are_the_same_on_every_machine() -> None:
    data = load(PatternsConfig(), CTX)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 288, "val": 72, "test": 240}
    assert len(data.classes) == len(CLASSES) == 6 and data.card["synthetic"] is True
    first, _ = data.splits["test"][0]
    assert hashlib.sha256(first.astype("<f8").tobytes()).hexdigest()[:16] == "594b41acc9e3f2e6"
    assert load(PatternsConfig(pattern_seed=1), CTX).fingerprint != data.fingerprint


def test_no_linear_map_of_the_steps_tells_them_apart() -> None:
    data = load(PatternsConfig(), CTX)
    x, y = ([np.stack([one.ravel() for one in data.splits[name].values]) for name in ("train", "test")],
            [data.splits[name].labels for name in ("train", "test")])  # fmt: skip
    fitted = fit_ridge(x[0], y[0], 6)
    guessed = (x[1] @ fitted.weight.T + fitted.bias).argmax(1)
    assert (guessed == y[1]).mean() < 0.3  # a sixth by chance


def test_lengths_of_their_own_and_missing_values() -> None:
    data = load(PatternsConfig(unequal=True, missing=0.2, train=60, test=12), CTX)
    lengths = data.splits["train"].lengths
    assert lengths.min() >= 48 and lengths.max() <= 96 and len(set(lengths.tolist())) > 10
    gone = np.concatenate([np.isnan(one).ravel() for one in data.splits["train"].values]).mean()
    assert 0.15 < gone < 0.25
