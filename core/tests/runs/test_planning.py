"""Checking a run before torch is imported: names, options, fit, data; and what config.toml will say."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from peftx.config.run import RunConfig, TrainConfig
from peftx.config.toml import dumps
from peftx.errors import ConfigError, DataError, UnknownNameError, UserError
from peftx.plugins.registry import Registry
from peftx.runs.planning import preflight, settle


def config(**values: Any) -> RunConfig:
    return RunConfig.model_validate({"task": "toy", **values})


def test_defaults_come_from_the_task(registry: Registry) -> None:
    plan = preflight(config(), registry)
    assert (plan.task.name, plan.method.name, plan.data.name) == ("toy.sorting", "core.lora", "toy.points")
    assert plan.model_name == "toy.net" and plan.model_config.width == 16
    assert [entry.name for entry in plan.baselines] == ["core.head", "core.full"]


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("core.head", ["core.lora", "core.full"]),
        ("core.dora", ["core.head", "core.lora", "core.full"]),
    ],
)
def test_the_row_equal_to_the_method_is_left_out(registry: Registry, method: str, rows: list[str]) -> None:
    assert [entry.name for entry in preflight(config(method=method), registry).baselines] == rows


def test_baselines_may_be_chosen_or_none(registry: Registry) -> None:
    assert preflight(config(baselines=[]), registry).baselines == ()
    chosen = preflight(config(baselines=["bitfit", "core.lora"]), registry).baselines
    assert [entry.name for entry in chosen] == ["core.bitfit"]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"task": "toys"}, UnknownNameError, "toys"),
        ({"task": ""}, ConfigError, "no task was chosen"),
        ({"method": "core.lorra"}, UnknownNameError, "core.lora"),
        ({"data": "pionts"}, UnknownNameError, "points"),
        ({"model": "nett"}, UnknownNameError, "net"),
        ({"baselines": ["lorra"]}, UnknownNameError, "lora"),
        ({"method": {"name": "core.lora", "rank": 0}}, ConfigError, "--method.rank: must be at least 1"),
        ({"method": {"name": "core.lora", "rnk": 4}}, ConfigError, "--method.rnk.*rank"),
        ({"data": {"name": "points", "classes": "x"}}, ConfigError, "--data.classes"),
        ({"model": {"name": "net", "heigth": 4}}, ConfigError, "--model.heigth"),
        ({"task": {"name": "toy", "speed": 1}}, ConfigError, "--task.speed"),
        ({"method": "toy.convonly"}, ConfigError, "toy.convonly adapts conv2d sites"),
        ({"method": "toy.distil"}, ConfigError, "distillation"),
        ({"method": "toy.camera"}, ConfigError, "needs camera"),
        ({"method": "toy.replay"}, ConfigError, "is a procedure"),
        ({"baselines": ["toy.camera"]}, ConfigError, "baseline toy.camera: toy.camera needs camera"),
        ({"data": {"name": "points", "absent": True}}, DataError, "points.bin"),
        ({"data": "file"}, ConfigError, "needs a path"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    registry: Registry, values: dict[str, Any], error: type[UserError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        preflight(config(**values), registry)
    assert "\n" not in str(caught.value)


def test_free_model_names_are_asked_of_the_pack(registry: Registry) -> None:
    plan = preflight(config(model={"name": "free:anything", "width": 4}), registry)
    assert plan.model is None and plan.model_name == "free:anything" and plan.model_config.width == 4
    with pytest.raises(ConfigError, match=r"--model\.width"):
        preflight(config(model={"name": "free:anything", "width": 0}), registry)


def test_nothing_of_this_imports_torch(registry: Registry) -> None:
    toypack = Path(__file__).parent / "toypack"
    code = f"""
import sys
sys.path.insert(0, {str(toypack)!r})
from peftx.config.run import RunConfig
from peftx.errors import UserError
from peftx.runs import execute, preflight, why_not
plan = preflight(RunConfig.model_validate({{"task": "toy", "data": "points"}}))
try:
    execute(RunConfig.model_validate({{"task": "toy", "data": {{"name": "points", "absent": True}}}}))
except UserError as error:
    print(error)
heavy = {{"torch", "numpy", "accelerate", "timm"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "points.bin" in done.stdout


def test_the_resolved_configuration_reads_back_as_the_same_plan(registry: Registry, tmp_path: Path) -> None:
    asked = config(
        method={"name": "lora", "rank": 3, "rank_pattern": {"fc1": 2}},
        model={"name": "net", "weights": "w.safetensors"},
        seed=5,
        baselines=["core.head"],
        data_root=tmp_path,
    )
    plan = preflight(asked, registry)
    train = TrainConfig(lr=1e-5, epochs=3)
    text = dumps(plan.resolved(train))
    again = RunConfig.model_validate(tomllib.loads(text))
    assert dumps(preflight(again, registry).resolved(again.train)) == text
    assert again.train == train
    assert again.method.options["rank_pattern"] == {"fc1": 2}
    assert Path(again.model.options["weights"]).is_absolute()


def test_a_path_after_the_colon_becomes_absolute_when_it_is_there(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    plan = preflight(config(data="file:here"), registry)
    assert plan.data_name == f"toy.file:{tmp_path / 'here'}"
    assert "path" not in plan.resolved(TrainConfig())["data"]
    assert preflight(config(data="file:under/root"), registry).data_name == "toy.file:under/root"


RECIPE = {"lr": 0.5, "epochs": 30, "batch_size": 64}


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults() -> None:
    train = settle(TrainConfig(epochs=2), RECIPE)
    assert (train.epochs, train.lr, train.batch_size, train.eval_batch_size) == (2, 0.5, 64, 256)


def test_a_learning_rate_for_the_method_is_not_the_baselines() -> None:
    asked = TrainConfig(lr=1e-3, head_lr=1e-2, epochs=2)
    assert settle(asked, RECIPE).lr == 1e-3
    row = settle(asked, RECIPE, baseline=True)
    assert (row.lr, row.head_lr, row.epochs) == (0.5, None, 2)
