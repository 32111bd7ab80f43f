from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from peftx.config.errors import as_config_error, problems
from peftx.errors import ConfigError


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lr: float = Field(0.1, gt=0)
    rank: int = Field(8, ge=1, le=64)
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    names: list[str] = []
    ranks: dict[str, int] = {}
    maybe: int | None = None
    device: str = Field("cpu", pattern="^c")
    even: int = 2
    large: int = Field(0, lt=2**32)
    must: int = Field(default=...)

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lr": -1}, "--t.lr: must be greater than 0 (got -1)"),
        ({"lr": "fast"}, "--t.lr: must be a number (got fast)"),
        ({"rank": 0}, "--t.rank: must be at least 1 (got 0)"),
        ({"rank": 65}, "--t.rank: must be at most 64 (got 65)"),
        ({"rank": "x"}, "--t.rank: must be a whole number (got x)"),
        ({"rank": 1.5}, "--t.rank: must be a whole number (got 1.5)"),
        ({"kind": "c"}, "--t.kind: must be one of a, b (got c)"),
        ({"flag": "perhaps"}, "--t.flag: must be true or false (got perhaps)"),
        ({"names": 3}, "--t.names: must be a list (got 3)"),
        ({"ranks": {"a": "b"}}, "--t.ranks.a: must be a whole number (got b)"),
        ({"maybe": "x"}, "--t.maybe: must be a whole number (got x)"),
        ({"device": "gpu"}, "--t.device: must match ^c (got gpu)"),
        ({"large": 2**32}, "--t.large: must be less than 4294967296 (got 4294967296)"),
        ({"even": 3}, "--t.even: must be even (got 3)"),
        ({"rnak": 3}, "--t.rnak: no such option. Did you mean rank, ranks?"),
    ],
)
def test_one_sentence_per_problem(values, sentence):
    with pytest.raises(ValidationError) as caught:
        Thing(**{"must": 1, **values})
    assert problems(caught.value, prefix="t", known=Thing.model_fields) == [sentence]


def test_what_two_options_break_together_is_not_followed_by_all_of_them():
    class Span(BaseModel):
        first: int = 0
        last: int = 1

        @model_validator(mode="after")
        def _ordered(self) -> Span:
            if self.first >= self.last:
                raise ValueError(f"first {self.first} is not before last {self.last}")
            return self

    with pytest.raises(ValidationError) as caught:
        Span(first=3)
    assert problems(caught.value, prefix="t") == ["--t: first 3 is not before last 1"]


def test_a_missing_value_is_required():
    with pytest.raises(ValidationError) as caught:
        Thing()
    assert problems(caught.value) == ["--must: is required"]


def test_names_are_spelled_as_the_user_wrote_them():
    with pytest.raises(ValidationError) as caught:
        Thing(must=1, lr=-1, rank=0, ranks={"a": "b"})
    spelled = {"t.lr": "--lr", "t.rank": "t.rank in run.toml", "t.ranks": "--ranks"}
    assert problems(caught.value, prefix="t", spelled=spelled) == [
        "--lr: must be greater than 0 (got -1)",
        "t.rank in run.toml: must be at least 1 (got 0)",
        "--ranks: must be a whole number (got b)",
    ]


def test_all_problems_come_in_one_error_without_pydantic_links():
    with pytest.raises(ValidationError) as caught:
        Thing(lr=-1, rank="x" * 200)
    error = as_config_error(caught.value)
    assert isinstance(error, ConfigError)
    lines = str(error).splitlines()
    assert len(lines) == 3 and not any("http" in line for line in lines)
    assert max(map(len, lines)) < 120
