"""Suites as data: what they take, what they refuse, and labels there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from peftx.config.run import Choice
from peftx.config.suite import Suite, SuiteData, label, parse_label

LEAST = {"task": "toy.sorting", "about": "Points.", "data": ["toy.points"]}


def suite(**values: Any) -> Suite:
    return Suite.model_validate({**LEAST, **values})


def test_the_least_suite_has_every_method_and_three_seeds() -> None:
    made = suite()
    assert [label(one) for one in made.methods] == ["all"] and made.seeds == 3
    assert made.models == () and made.rates == (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def test_a_data_set_has_options_and_settings_of_its_own() -> None:
    (data,) = suite(data=[{"name": "toy.points", "classes": 4, "train": {"epochs": 2}}]).data
    assert data.options == {"classes": 4} and data.train == {"epochs": 2}
    assert label(data) == "toy.points classes=4"


def test_a_data_set_has_options_of_the_task_that_its_label_says() -> None:
    made = suite(
        data=["toy.points", {"name": "toy.points", "classes": 4, "task": {"steps": 3}}],
        published=[{"method": "x", "data": "toy.points task.steps=3 classes=4", "value": 1, "source": "y"}],
    )
    assert label(made.data[1]) == made.published[0].data == "toy.points classes=4 task.steps=3"
    assert made.data[1].options == {"classes": 4} and made.data[1].task == {"steps": 3}
    assert SuiteData.of(parse_label(label(made.data[1]))) == made.data[1]
    assert SuiteData.of(made.data[1]) == made.data[1]


def test_a_suite_survives_json() -> None:
    made = suite(
        methods=["core.head", {"name": "core.lora", "rank": 4, "targets": ["mlp"]}],
        published=[{"method": "X", "data": "toy.points", "value": 1.0, "source": "a book"}],
    )
    assert Suite.model_validate(json.loads(made.model_dump_json())) == made


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": []}, "at least 1 item"),
        ({"data": ["toy.points", "toy.points"]}, "toy.points stands there twice"),
        ({"methods": [{"rank": 4}]}, r"an entry has no name \(rank=4\)"),
        ({"seeds": 0}, "greater than or equal to 1"),
        ({"rates": [0.1, -1.0]}, "a learning rate is a number above 0"),
        ({"rates": [0.1, 0.1]}, "0.1 stands there twice"),
        ({"weight_decays": [0.1, -1.0]}, "a weight decay is a number of at least 0"),
        ({"train": {"epochs": 0}}, "--train.epochs: must be at least 1"),
        ({"train": {"epoch": 1}}, "--train.epoch: no such option"),
        ({"data": [{"name": "toy.points", "train": {"lr": "fast"}}]}, "--train.lr: must be a number"),
        (
            {"data": [{"name": "toy.points", "search": {"name": "x"}}]},
            "search holds options of the data set alone, and name is none",
        ),
        ({"colour": "red"}, "Extra inputs are not permitted"),
        (
            {"published": [{"method": "X", "data": "toy.other", "value": 1, "source": "a book"}]},
            "the published row of X is for toy.other, which is none of toy.points",
        ),
        (
            {"published": [{"method": "X", "data": "toy.points", "value": 1, "source": ""}]},
            "at least 1 character",
        ),
        (
            {"published": [{"method": "X", "data": "toy.points", "value": float("nan"), "source": "a book"}]},
            "finite number",
        ),
    ],
)
def test_what_a_suite_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        suite(**values)


def test_a_published_row_may_spell_the_label_otherwise() -> None:
    made = suite(
        data=[{"name": "toy.points", "spread": 2.0, "classes": 4}],
        published=[
            {"method": "X", "data": "toy.points  spread=2.0 classes=4", "value": 1.0, "source": "a book"}
        ],
    )
    assert made.published[0].data == label(made.data[0]) == "toy.points classes=4 spread=2"


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("digits", "digits", {}),
        ("vision.digits limit_train=100", "vision.digits", {"limit_train": 100}),
        (
            'core.lora rank=4 targets=["mlp"] init=gaussian',
            "core.lora",
            {"rank": 4, "targets": ["mlp"], "init": "gaussian"},
        ),
        ("imagefolder:/my photos/x limit_train=none", "imagefolder:/my photos/x", {"limit_train": None}),
        ("core.lora dropout=0.1 train_cls=true", "core.lora", {"dropout": 0.1, "train_cls": True}),
    ],
)
def test_labels_are_read(text: str, name: str, options: dict[str, Any]) -> None:
    found = parse_label(text)
    assert (found.name, found.options) == (name, options)


names = st.from_regex(r"[a-z]{1,6}\.[a-z_]{1,8}", fullmatch=True)
values = st.one_of(
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.lists(st.sampled_from(["mlp", "attention.q", "all-linear"]), max_size=3),
    st.sampled_from(["gaussian", "re:.*fc1", "squash"]),
)


@given(names, st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), values, max_size=3))
def test_a_label_is_read_as_what_it_was_made_of(name: str, options: dict[str, Any]) -> None:
    options.pop("name", None)
    choice = Choice.model_validate({"name": name, **options})
    again = parse_label(label(choice))
    assert (again.name, again.options) == (choice.name, choice.options)
    assert label(again) == label(choice)
