"""A data set by its name, as the command line finds it, with options as it takes them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peftx.data.by_name import named_dataset
from peftx.data.contract import DataContext
from peftx.errors import ConfigError, DataError, UnknownNameError
from peftx.plugins import DatasetSpec
from peftx.plugins.loader import Loaded, PluginInfo
from peftx.plugins.registry import Registry
from peftx.plugins.validation import Contribution

MODULE = """
from pathlib import Path
from pydantic import BaseModel, ConfigDict, Field
from peftx.data.contract import Dataset, Split
from peftx.errors import DataError

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int = Field(default=2, ge=1, description="samples")
    words: tuple[str, ...] = Field(default=(), description="what they say")
    path: Path = Field(default=Path("."), description="where")

class Numbers(Split):
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, index): return index

def locate(config, ctx):
    if config.path == Path("nowhere"):
        raise DataError("no such file: nowhere")

def load(config, ctx):
    count = config.count if config else 1
    return Dataset("numbers", {"train": Numbers(count), "test": Numbers(ctx.seed)}, (), "0")
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    (tmp_path / "own_numbers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    load, config, locate = (f"own_numbers:{name}" for name in ("load", "Options", "locate"))
    declared = Contribution()
    declared.specs["peftx_datasets"] += [
        DatasetSpec("own.numbers", "", load, config, locate=locate),
        DatasetSpec("own.file", "", load, config, locate=locate, parametric=True),
        DatasetSpec("own.bare", "", load),
    ]
    yield Registry([Loaded(PluginInfo("own", "peftx-own", "1"), None, declared)])
    sys.modules.pop("own_numbers", None)


@pytest.fixture
def ctx(tmp_path: Path) -> DataContext:
    return DataContext(None, tmp_path, offline=True, seed=5)


def test_it_is_found_and_loaded_with_options_as_flags_take_them(registry: Registry, ctx: DataContext) -> None:
    given = {"count": "3", "words": "a,b"}
    named = named_dataset("numbers", given, domain="own", registry=registry)
    assert named.name == "own.numbers" and named.config.words == ("a", "b")
    named.locate(ctx)
    data = named.load(ctx)
    assert len(data.splits["train"]) == 3 and len(data.splits["test"]) == 5
    assert len(named_dataset("own.bare", registry=registry).load(ctx).splits["train"]) == 1


def test_what_stands_behind_a_colon_is_its_path(registry: Registry, ctx: DataContext) -> None:
    named = named_dataset("file:sub/x.csv", registry=registry)
    assert named.name == "own.file:sub/x.csv" and named.config.path == Path("sub/x.csv")
    with pytest.raises(DataError, match="no such file: nowhere"):
        named_dataset("file:nowhere", registry=registry).locate(ctx)
    named_dataset("bare", registry=registry).locate(ctx)  # it has nothing to be found


def test_wrong_names_and_options_are_sentences(registry: Registry) -> None:
    with pytest.raises(
        UnknownNameError, match=r"no data set is called 'own.numberz'\. Did you mean .*numbers"
    ):
        named_dataset("own.numberz", registry=registry)
    with pytest.raises(ConfigError, match="data set file needs a path: write file:PATH"):
        named_dataset("file", registry=registry)
    with pytest.raises(ConfigError, match=r"^--data\.source-options count: must be at least 1 \(got 0\)$"):
        named_dataset("numbers", {"count": "0"}, option="source", registry=registry)
    with pytest.raises(
        ConfigError, match=r"^--data\.source-options cuont: no such option\. Did you mean .*count"
    ):
        named_dataset("numbers", {"cuont": 1}, option="source", registry=registry)
    with pytest.raises(ConfigError, match=r"^--data\.target-options count: own\.bare takes no options$"):
        named_dataset("bare", {"count": 1}, option="target", registry=registry)


def test_it_needs_no_torch() -> None:
    code = "import sys, peftx.data.by_name; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
