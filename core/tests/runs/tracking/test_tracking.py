"""Trackers are checked before a run, cost nothing when there are none, and cannot harm one; so with anybody's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peftx.config.run import RunConfig
from peftx.errors import PluginError, UnknownNameError
from peftx.plugins.manager import forget, get_registry
from peftx.plugins.registry import Registry
from peftx.runs import execute, tracking
from peftx.runs.result import Run

PAGE = Path(__file__).parents[4] / "docs" / "runs.md"


def run(registry: Registry, out: Path, *track: str, **settings: Any) -> Any:
    given = {
        "task": "toy",
        "method": {"name": "core.lora", "targets": ["glob:*fc1"]},
        "train": {"epochs": 2},
        "device": "cpu",
        "baselines": [],
        "efficiency": False,
        "report": False,
        "track": list(track),
        "out": out,
    }
    return execute(RunConfig.model_validate(given | settings), registry)


# --- before the run -----------------------------------------------------------------------------------------
def test_an_unknown_tracker_is_refused_with_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match=r"^--track tensorbord: .*Did you mean tensorboard\?$"):
        tracking.check(["tensorbord"])
    with pytest.raises(UnknownNameError, match=r"Known: tensorboard\.$"):
        tracking.check(["csv"])


def test_an_absent_package_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    tracking.check([])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        PluginError, match=r"^--track tensorboard needs .*: pip install 'peftx\[tensorboard\]'$"
    ):
        tracking.check(["tensorboard"])


def test_the_extra_is_declared() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    for tracker in tracking.TRACKERS.values():
        assert [text.split(">")[0] for text in project["optional-dependencies"][tracker.package]] == [
            tracker.package
        ]


def test_checking_imports_neither_torch_nor_the_trackers_package() -> None:
    code = (
        "import sys; from peftx.runs import tracking; tracking.check(['tensorboard']); "
        "assert not {'torch', 'tensorboard'} & sys.modules.keys()"
    )
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what listens -------------------------------------------------------------------------------------------
def fake(*track: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(track=list(track)), folder=Path("nowhere"))


def test_nobody_hears_a_step_of_a_run_without_trackers(registry: Registry) -> None:
    registry.events.fire("peftx_run_started", run=fake(), resumed=False)
    assert not any(
        registry.events.listened(f"peftx_{event}") for event in ("step", "evaluated", "run_finished")
    )


class Heard:
    """Listens to everything, with the arguments it likes."""

    def __init__(self, run: Any = None, resumed: bool = False) -> None:
        self.heard: list[Any] = []

    def peftx_step(self, step: int) -> None:
        self.heard.append(step)

    def peftx_evaluated(self, split: str, metrics: Any, row: str) -> None:
        self.heard.append((row, split, sorted(metrics)))

    def peftx_run_finished(self, record: Any) -> None:
        self.heard.append(record["status"])

    def peftx_run_stopped(self, error: BaseException) -> None:
        self.heard.append(error)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Heard]:
    """The listeners that `--track heard` has made."""
    listeners: list[Heard] = []

    def make(run: Any, resumed: bool) -> Heard:
        listeners.append(Heard())
        return listeners[-1]

    module: Any = type(sys)("peftx_test_heard")
    module.make = make
    monkeypatch.setitem(sys.modules, "peftx_test_heard", module)
    monkeypatch.setitem(tracking.TRACKERS, "heard", tracking.Tracker("peftx_test_heard:make", "json"))
    return listeners


def test_a_tracker_hears_its_run_and_is_let_go(registry: Registry, tmp_path: Path, made: list[Heard]) -> None:
    run(registry, tmp_path / "one", "heard", "heard")
    (listener,) = made  # named twice, made once
    scores = ["accuracy", "loss", "n"]
    assert [entry for entry in listener.heard if isinstance(entry, int)] == list(range(1, 13))
    rest = [entry for entry in listener.heard if not isinstance(entry, int)]
    assert [entry[:2] for entry in rest[:-1]] == [
        ("core.lora", split) for split in ("val", "val", "val", "test")
    ]
    assert all(set(scores) <= set(entry[2]) for entry in rest[:-1]) and rest[-1] == "complete"
    assert not registry.events.listened("peftx_step")
    heard = len(listener.heard)
    run(registry, tmp_path / "two")
    assert len(listener.heard) == heard and len(made) == 1


def test_a_tracker_is_told_that_its_run_stopped(
    registry: Registry, tmp_path: Path, made: list[Heard]
) -> None:
    task = {"name": "toy", "explode_at": 4}
    with pytest.raises(Exception, match="nan") as raised:
        run(registry, tmp_path / "run", "heard", task=task)
    assert made[0].heard[-1] is raised.value
    assert not registry.events.listened("peftx_step")


def test_two_runs_at_a_time_are_not_mixed(registry: Registry, made: list[Heard]) -> None:
    one, two = fake("heard"), fake("heard")
    for number, each in enumerate((one, two)):
        registry.events.fire("peftx_run_started", run=each, resumed=False)
        registry.events.fire("peftx_step", run=each, row="r", step=number, metrics={})
    registry.events.fire("peftx_run_finished", run=one, record={"status": "complete"})
    assert registry.events.listened("peftx_step")
    registry.events.fire("peftx_step", run=two, row="r", step=5, metrics={})
    assert [listener.heard for listener in made] == [[0, "complete"], [1, 5]]


# --- failures -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("event", ["peftx_step", "peftx_evaluated", "peftx_run_finished"])
def test_a_tracker_that_fails_is_warned_about_once_and_the_run_goes_on(
    registry: Registry, tmp_path: Path, made: list[Heard], monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    def full(self: Heard) -> None:
        self.heard.append("failed")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Heard, event, full)
    with pytest.warns(RuntimeWarning) as warned:
        result = run(registry, tmp_path / "run", "heard")
    (text,) = [str(one.message) for one in warned if "plugin core" in str(one.message)]
    assert text.endswith("hears no more of this run (OSError: [Errno 28] No space left on device)")
    assert made[0].heard[-1] == "failed" and made[0].heard.count("failed") == 1
    assert result.record["status"] == "complete" and len(result.rows) == 1
    with pytest.warns(RuntimeWarning, match="No space left"):  # another run is told of it again
        run(registry, tmp_path / "again", "heard")


@pytest.mark.parametrize("target", ["peftx_test_absent:Tracker", "peftx_test_broken:Tracker"])
def test_a_tracker_that_cannot_be_made_does_not_stop_a_run(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "peftx_test_broken.py").write_text("raise ImportError('protobuf is of another version')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", tracking.Tracker(target, "json"))
    with pytest.warns(
        RuntimeWarning, match=r"plugin core: peftx_run_started failed and is ignored \(PluginError"
    ):
        result = run(registry, tmp_path / "run", "tensorboard")
    assert result.record["status"] == "complete"


def test_trackers_made_before_a_failing_one_stay(
    registry: Registry, made: list[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tracking.TRACKERS, "absent", tracking.Tracker("peftx_test_absent:Tracker", "json"))
    each = fake("heard", "absent")
    with pytest.warns(RuntimeWarning, match="peftx_test_absent"):
        registry.events.fire("peftx_run_started", run=each, resumed=False)
    registry.events.fire("peftx_step", run=each, row="r", step=1, metrics={})
    assert made[0].heard == [1]


# --- a plugin's own -----------------------------------------------------------------------------------------
@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> Iterator[Any]:
    """Install a plugin of that source, and return the registry with it."""

    def installed(source: str) -> Registry:
        site = tmp_path / "site"
        info = site / "peftx_curves-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "peftx_curves_plugin.py").write_text(source)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peftx-curves\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[peftx.plugins]\ncurves = peftx_curves_plugin\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PEFTX_PLUGINS", "core,toy,curves")
        importlib.invalidate_caches()
        forget()
        return get_registry()

    yield installed
    forget()
    sys.modules.pop("peftx_curves_plugin", None)


@pytest.fixture
def example() -> str:
    """The tracker of the documentation."""
    if not PAGE.exists():
        pytest.skip("the documentation is not part of this installation")
    found = re.search(r"<!-- example: tracker -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found.group(1)


def test_the_tracker_of_the_documentation_writes_every_step(
    install: Any, example: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = run(install(example), tmp_path / "run", baselines=["core.head"])
    lines = (result.folder / "curves.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        [row, str(step)] for row in ("core.lora", "core.head") for step in range(1, 13)
    ]
    assert all(float(line.split(",")[2]) > 0 for line in lines)


def test_a_plugins_hooks_are_heard_as_ever(install: Any, tmp_path: Path) -> None:
    registry = install(
        "from peftx.plugins import hookimpl\n"
        "PEFTX_API = 1\n"
        "steps = []\n"
        "@hookimpl\n"
        "def peftx_run_started(run):\n"
        "    return 'whatever'\n"  # a value that listens to nothing is no listener
        "@hookimpl\n"
        "def peftx_step(step, run):\n"
        "    steps.append((step, type(run).__name__))\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run(registry, tmp_path / "run")
    import peftx_curves_plugin  # type: ignore[import-not-found]

    assert peftx_curves_plugin.steps == [(step, Run.__name__) for step in range(1, 13)]
