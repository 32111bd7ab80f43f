"""A torch-free toy pack, installed as pip leaves it, so that the command line is tested without any real
pack."""

from __future__ import annotations

import importlib
import sys

import pytest

from peftx.cli.main import main
from peftx.plugins.manager import forget

GROUP = "peftx.plugins.of_this_test"

PLUGIN = """
from peftx.plugins import CommandSpec, DatasetSpec, MethodSpec, ModelSpec, Needs, Offers, TaskSpec, hookimpl

PEFTX_API = 1

@hookimpl
def peftx_methods():
    yield MethodSpec("toy.scale", "one scale per channel", "toy_things:Nothing", "toy_things:ScaleConfig",
                     paper="arXiv:0000.00000", licence="MIT", needs=Needs(sites=("linear",)))
    yield MethodSpec("toy.ctc", "needs another objective", "toy_things:Nothing", "toy_things:ScaleConfig",
                     needs=Needs(objective="ctc"))

@hookimpl
def peftx_tasks():
    yield TaskSpec("toy.sorting", "sort things", "toy_things:Nothing", "toy_things:TaskConfig",
                   offers=Offers(sites=("linear",)), default_data="toy.small", default_model="toy.net",
                   default_method="toy.scale", baselines=("core.head",), models="toy_things:known")

@hookimpl
def peftx_datasets():
    yield DatasetSpec("toy.small", "a few things", "toy_things:load", "toy_things:DataConfig", licence="CC0",
                      size="1 KiB")
    yield DatasetSpec("toy.far", "not here", "toy_things:load", "toy_things:DataConfig", aliases=("away",),
                      locate="toy_things:locate", verified=False, synthetic=True)
    yield DatasetSpec("toy.folder", "your own", "toy_things:load", "toy_things:FolderConfig", parametric=True)

@hookimpl
def peftx_models():
    yield ModelSpec("toy.net", "a net", "toy_things:Nothing", params=1234)

@hookimpl
def peftx_commands():
    yield CommandSpec("toy.hello", "say hello", "toy_things:hello")
"""

THINGS = '''
from pathlib import Path
import click
from pydantic import BaseModel, ConfigDict, Field
from peftx.errors import DataError

class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

class ScaleConfig(Strict):
    """Multiplies every channel by a number."""
    start: float = Field(1.0, gt=0, description="where the scale starts")
    names: list[str] = Field(["mlp"], description="which layers")
    bias: bool = Field(False, description="a bias too")

class TaskConfig(Strict):
    order: str = Field("up", description="which way")

class DataConfig(Strict):
    limit: int | None = Field(None, ge=1, description="use fewer")

class FolderConfig(DataConfig):
    path: Path = Field(description="folder")

class FreeConfig(Strict):
    pretrained: bool = Field(True, description="with weights")

def known(name):
    return "toy_things:FreeConfig" if name.startswith("free_") else False

def locate(config, ctx):
    raise DataError(f"toy.far is not under {ctx.cache}; get it by hand")

def load(config, ctx):
    from peftx.data import Dataset, Published, Split
    class Few(Split):
        def __init__(self, n): self.n = n
        def __len__(self): return self.n
        def __getitem__(self, i): return i, 0
    n = config.limit or 3
    return Dataset("toy.small", {"train": Few(n), "val": Few(1)}, ("a",), "f00d",
                   published=Published({"train": 3, "val": 1}, ("a",), source="a book"))

@click.command()
def hello():
    """Say hello."""
    click.echo("hello")
'''


@pytest.fixture
def toy(tmp_path_factory, tmp_path, monkeypatch):
    """Install the toy pack, hide all others, and work in an empty folder. Returns the folder of the pack."""
    site = tmp_path_factory.mktemp("site")
    (site / "toy_plugin.py").write_text(PLUGIN)
    (site / "toy_things.py").write_text(THINGS)
    info = site / "peftx_toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peftx-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ntoy = toy_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    for name in ("PEFTX_DISABLE_PLUGINS", "PEFTX_OFFLINE", "PEFTX_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    # An entry-point group of its own: whatever packs are installed here stay out of sight.
    monkeypatch.setattr("peftx.plugins.api.ENTRY_POINT_GROUP", GROUP)
    monkeypatch.setenv("PEFTX_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    forget()
    yield site
    forget()
    for name in ("toy_plugin", "toy_things"):
        sys.modules.pop(name, None)


@pytest.fixture
def peftx(toy, capsys):
    """Run the command line in this process; returns (status, stdout, stderr)."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
