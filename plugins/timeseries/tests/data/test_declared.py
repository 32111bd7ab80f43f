"""The declared data sets: light to import, complete, and as the laws of data sets ask for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from peftx.data.contract import DataContext
from peftx.plugins import DatasetSpec, load_target
from peftx.testing import check
from peftx_timeseries.data.official import SETS
from peftx_timeseries.plugin.datasets import peftx_datasets

SPECS: list[DatasetSpec] = list(peftx_datasets())


def test_configs_and_locators_import_neither_torch_nor_pandas() -> None:
    targets = [target for spec in SPECS for target in (spec.config, spec.locate, spec.target) if target]
    code = (
        "import sys\nfrom peftx.plugins import load_target\n"
        f"for target in {targets!r}: load_target(target)\n"
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'transformers') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_target_is_there_and_every_option_says_what_it_does(spec: DatasetSpec) -> None:
    assert spec.summary and spec.licence and spec.source
    for target in (spec.target, spec.locate):
        assert not target or callable(load_target(target))
    assert all(field.description for field in load_target(spec.config).model_fields.values())


def test_what_is_declared_of_the_official_sets_is_what_they_are() -> None:
    declared = {spec.name: spec for spec in SPECS}
    for one in SETS.values():
        spec = declared[f"timeseries.{one.name}"]
        assert (spec.licence, spec.source, spec.verified) == (one.licence, one.source, one.verified)
        assert f"{one.rows:,}" in spec.summary


def test_the_waves_keep_the_laws() -> None:
    report = check("timeseries.waves")
    assert report.ok, report.render()


def test_tables_keep_the_laws(write: Callable[..., Path], table: Callable[..., pd.DataFrame]) -> None:
    wide = write(table().to_csv(index=False))
    held = table(freq="D").melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    long = write(held.to_csv(index=False), "long.csv")
    for name in (f"timeseries.csv:{wide}", f"timeseries.long:{long}"):
        report = check(name, laws=("offline", "no_pickle", "splits", "fingerprint", "indexing", "card"))
        assert report.ok and len(report.of("passed")) == 6, report.render()


@pytest.mark.parametrize(
    "name", ["etth1", "illness", "m4:weekly", "tsf:monash/tourism_yearly_dataset.tsf.gz"]
)
def test_the_real_ones_keep_the_laws(real: Path, tmp_path: Path, name: str) -> None:
    context = DataContext(real, tmp_path, offline=True)
    laws = ("offline", "no_pickle", "splits", "fingerprint", "indexing", "card", "published")
    report = check(f"timeseries.{name}", context=context, laws=laws)
    assert report.ok and len(report.of("passed")) >= 6, report.render()
