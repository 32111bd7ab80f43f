"""What things are called: no more options than it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftx.plugins.manager import get_registry
from peftx.results.labels import Defaults, differing, flat, named, show


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (0.003, "0.003"),
        (0.00123456789, "0.00123456789"),
        (1e-05, "1e-05"),
        (16, "16"),
        (["a", "b"], "a,b"),
        ([], "none"),
        ({"x": 1}, "x=1"),
        (Path("a"), "a"),
    ],
)
def test_values_as_one_would_type_them(value: Any, text: str) -> None:
    assert show(value) == text


def test_only_what_differs_is_named() -> None:
    settings = [
        {"option.rank": 4, "option.alpha": 16.0, "train.lr": 0.01},
        {"option.rank": 8, "option.alpha": 16},
    ]
    keys = differing(settings)
    assert keys == ["option.rank", "train.lr"], "16 is 16.0, and absent is not 0.01"
    assert named("core.lora", settings[0], keys) == "core.lora rank=4 lr=0.01"
    assert named("core.lora", settings[1], keys) == "core.lora rank=8 lr=none"
    assert named("core.lora", settings[0], []) == "core.lora"
    assert differing(settings[:1]) == [] and differing([]) == []


def test_absent_is_as_good_as_none() -> None:
    assert differing([{"a": None}, {}]) == []


def test_a_key_keeps_its_section_where_two_have_the_same_name() -> None:
    values = {"option.seed": 1, "data.seed": 2}
    assert named("x", values, list(values)) == "x option.seed=1 data.seed=2"


def test_flat_sections() -> None:
    assert flat({"option": {"rank": 8}, "train": {}}) == {"option.rank": 8}


def test_defaults_come_from_the_configuration_classes() -> None:
    defaults = Defaults(get_registry(("all",)))
    known = defaults.of("method", "core.lora")
    assert known is not None and known["rank"] == 8
    assert defaults.filled("method", "core.lora", {"rank": 4})["rank"] == 4
    assert defaults.filled("method", "core.lora", {"rank": 4})["alpha"] == 16.0
    train = defaults.of("train", "")
    assert train is not None and train["patience"] is None


def test_what_nobody_knows_has_no_defaults() -> None:
    assert Defaults().of("method", "core.lora") is None
    defaults = Defaults(get_registry(("all",)))
    assert defaults.of("method", "gone.method") is None and defaults.of("model", "gone", "gone.task") is None
    assert defaults.filled("method", "gone.method", {"rank": 4}) == {"rank": 4}
