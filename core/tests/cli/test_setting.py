"""``--set OPTION=VALUE`` of the commands that name one thing alone."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from peftx.cli.setting import config_of, parse_settings
from peftx.errors import ConfigError


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    fold: int = Field(1, ge=1)
    split: str = "final"
    columns: tuple[str, ...] = ()
    most: int | None = 3


def test_values_are_json_where_they_are_and_text_elsewhere():
    assert parse_settings(["fold=2", "split=tune", "a-b=[1,2]", "rate=1e-3", "path=x=y", "empty="]) == {
        "fold": 2, "split": "tune", "a_b": [1, 2], "rate": 1e-3, "path": "x=y", "empty": ""
    }  # fmt: skip
    for text in ("fold", "=2"):
        with pytest.raises(ConfigError, match=f"^--set {text}: write OPTION=VALUE"):
            parse_settings([text])


def test_a_configuration_or_one_line_for_each_problem():
    assert config_of(Options, {"fold": 3}, "mine") == Options(fold=3)
    assert config_of(None, {}, "mine") is None
    # text is read as in a flag
    assert config_of(Options, {"columns": "a,b"}, "mine") == Options(columns=("a", "b"))
    assert config_of(Options, {"columns": ["a"], "most": "none"}, "mine") == Options(
        columns=("a",), most=None
    )
    with pytest.raises(ConfigError, match=r"^--set fold: mine takes no options$"):
        config_of(None, {"fold": 3}, "mine")
    with pytest.raises(ConfigError) as caught:
        config_of(Options, {"fold": 0, "folds": 2}, "mine")
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith("--set fold: ") and "(got 0)" in first
    assert second.startswith("--set folds: no such option")


def test_data_check_takes_them(peftx):
    assert peftx("data", "check", "small", "--set", "limit=3")[0] == 0
    assert peftx("data", "check", "small", "--set", "limit=2")[0] == 1  # fewer than are published
    status, _, err = peftx("data", "check", "small", "--set", "limit=0")
    assert status == 2 and err.startswith("error: --set limit: must be at least 1 (got 0)"), err
