from __future__ import annotations

import pytest
from pydantic import ValidationError

from peftx.config.run import Choice, RunConfig, TrainConfig


def test_a_choice_is_a_name_with_free_options():
    choice = Choice.model_validate({"name": "core.lora", "rank": "8", "targets": ["mlp"]})
    assert (choice.name, choice.options) == ("core.lora", {"rank": "8", "targets": ["mlp"]})
    assert Choice.model_validate("core.lora") == Choice(name="core.lora")
    assert RunConfig(task="vision", method={"name": "x", "rank": 1}).method.options == {"rank": 1}


def test_defaults():
    run = RunConfig()
    assert (run.seed, run.device, run.precision, run.out, run.baselines) == (0, "auto", "fp32", None, None)
    assert (run.train.epochs, run.train.batch_size, run.train.lr) == (10, 32, None)
    assert run.task.name == ""


def test_what_was_set_is_known_so_that_a_recipe_can_fill_the_rest():
    assert RunConfig(train={"epochs": 10}).train.model_fields_set == {"epochs"}
    assert RunConfig().train.model_fields_set == set()


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"device": "gpu"},
        {"precision": "fp8"},
        {"unknown": 1},
        {"train": {"epochs": 0}},
        {"train": {"lr": 0}},
        {"train": {"warmup": 1}},
        {"train": {"unknown": 1}},
        {"task": 3},
        {"train": {"batch_size": 2**31}},
    ],
)
def test_what_makes_no_sense_is_refused(values):
    with pytest.raises(ValidationError):
        RunConfig(**values)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_devices(device):
    assert RunConfig(device=device).device == device


def test_every_option_has_a_description():
    for schema in (RunConfig, TrainConfig):
        assert all(info.description for info in schema.model_fields.values()), schema


def test_paths_may_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert RunConfig(out="~/runs/a").out == tmp_path / "runs" / "a"
