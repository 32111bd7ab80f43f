"""Every example of docs/own-loop.md runs, and leaves what the page says."""

from __future__ import annotations

import importlib.util
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

LIBRARY = {"transformers": "transformers", "lightning": "lightning"}


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "own-loop.md").read_text()


@pytest.fixture
def run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the example of a name in an empty folder, and return its names."""

    def example(name: str) -> dict[str, Any]:
        library = LIBRARY.get(name)
        if library is not None and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
        found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        assert found, f"docs/own-loop.md has no example {name!r}"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        names: dict[str, Any] = {"__name__": "example"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(found.group(1), f"docs/own-loop.md:{name}", "exec"), names)
        return names

    return example


def test_every_example_is_tested(page: str) -> None:
    assert re.findall(r"<!-- example: (\w+) -->", page) == ["bare", "resume", "transformers", "lightning"]
    assert page.count("```python") == 4


def test_bare_loop(run: Any, tmp_path: Path) -> None:
    names = run("bare")
    groups = {group["name"]: group for group in names["optimizer"].param_groups}
    assert groups.keys() == {"adapter.matrices", "adapter.vectors"}
    assert groups["adapter.vectors"]["weight_decay"] == 0.0 != groups["adapter.matrices"]["weight_decay"]
    assert names["loss"].item() < 0.69
    assert (tmp_path / "my-adapter" / "adapter.safetensors").is_file()


def test_going_on(run: Any, tmp_path: Path) -> None:
    names = run("resume")  # asserts that both runs end at the same bits
    assert {file.name for file in (tmp_path / "half-way").iterdir()} == {
        "adapter.json",
        "adapter.safetensors",
        "state.json",
        "state.safetensors",
    }
    assert names["state"]["schedules"] == {}


def test_transformers(run: Any, tmp_path: Path) -> None:
    names = run("transformers")
    assert names["trainer"].state.global_step == 8
    assert (tmp_path / "out" / "checkpoint-8" / "peftx" / "default" / "adapter.safetensors").is_file()
    assert (tmp_path / "my-adapter" / "adapter.json").is_file()


def test_lightning(run: Any, tmp_path: Path) -> None:
    names = run("lightning")
    assert names["trainer"].global_step == 8
    assert (tmp_path / "my-adapter" / "adapter.json").is_file()
