"""Plugins as pip leaves them: a module and a .dist-info folder with metadata and entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap

import pytest

from peftx.plugins.loader import blocking, load_all
from peftx.plugins.registry import Registry

HEADER = "from peftx.plugins import DatasetSpec, MethodSpec, ModelSpec, TaskSpec, hookimpl\n"


class Site:
    """A folder of installed plugins; `registry()` loads exactly those and core."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = []

    def add(self, domain, source, distribution=None, version="1.0", api="PEFTX_API = 1"):
        distribution = distribution or f"peftx-{domain}"
        module = distribution.replace("-", "_") + "_plugin"
        self.modules.append(module)
        text = "\n".join([HEADER, api, textwrap.dedent(source)])
        (self.folder / f"{module}.py").write_text(text, encoding="utf-8")
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[peftx.plugins]\n{domain} = {module}\n")
        importlib.invalidate_caches()
        return self

    def loaded(self, disabled=(), only=None, environment=None):
        points = [
            point
            for found in importlib.metadata.distributions(path=[str(self.folder)])
            for point in found.entry_points
            if point.group == "peftx.plugins"
        ]
        return load_all(blocking(disabled, only, environment or {}), points)

    def registry(self, **choice):
        return Registry(self.loaded(**choice))

    def info(self, domain, **choice):
        return next(one.info for one in self.loaded(**choice) if one.info.domain == domain)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Site(tmp_path)
    yield made
    for name in made.modules:
        sys.modules.pop(name, None)


METHOD = """
@hookimpl
def peftx_methods():
    yield MethodSpec("{domain}.{name}", "a method", "{domain}.x:X", "{domain}.x:XConfig")
"""


@pytest.fixture
def method():
    """Source of a plugin with one method."""
    return lambda domain, name="scale": METHOD.format(domain=domain, name=name)
