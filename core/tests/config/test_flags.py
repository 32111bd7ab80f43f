from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

from peftx.config.flags import Flag, parse, place
from peftx.config.options import options_of
from peftx.errors import ConfigError


class Inner(BaseModel):
    depth: int = 1


class Method(BaseModel):
    rank: int = 8
    targets: list[str] = ["mlp"]
    ranks: dict[str, int] = {}
    norms: bool = True
    kind: Literal["a", "b"] = "a"
    bits: Literal[1, 2, "all"] | None = 1
    seed: int = 0
    inner: Inner = Inner()


class Train(BaseModel):
    lr: float | None = None
    batch_size: int = 32
    seed: int = 0


class Top(BaseModel):
    device: str = "auto"
    offline: bool = False
    baselines: list[str] | None = None


SECTIONS = {
    "": list(options_of(Top)),
    "method": list(options_of(Method)),
    "train": list(options_of(Train)),
}


def read(*arguments):
    return place(parse(arguments, ("offline",)).flags, SECTIONS)[0]


def test_words_and_flags_are_told_apart():
    found = parse(["vision", "--a.b", "1", "--c=x=y", "--offline", "word", "--last"], ("offline",))
    assert found.words == ["vision", "word"]
    assert found.flags == [
        Flag("a.b", "1", "--a.b"),
        Flag("c", "x=y", "--c"),
        Flag("offline", None, "--offline"),
        Flag("last", None, "--last"),
    ]


def test_negative_numbers_are_values_and_double_dash_ends_flags():
    found = parse(["--lr", "-1e-3", "--x", "-.5", "--", "--not-a-flag"])
    assert [flag.value for flag in found.flags] == ["-1e-3", "-.5"]
    assert found.words == ["--not-a-flag"]


@pytest.mark.parametrize("token", ["-x", "---", "--=3", "--a..b", "--.a"])
def test_malformed_flags_are_refused(token):
    with pytest.raises(ConfigError, match="is not a flag"):
        parse([token])


def test_switches_and_texts_are_taken_out():
    found = parse(["--dry-run", "--config", "a", "--config", "b", "--rest", "1"], ("dry_run",))
    assert found.switch("dry_run") and not found.switch("dry_run")
    assert found.text("config") == "b" and found.text("config") is None
    assert [flag.key for flag in found.flags] == ["rest"]
    with pytest.raises(ConfigError, match="--json takes no value"):
        parse(["--json=yes"]).switch("json")
    with pytest.raises(ConfigError, match="--config needs a value"):
        parse(["--config"]).text("config")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method.rank", "4"], {"method": {"rank": "4"}}),
        (["--rank", "4"], {"method": {"rank": "4"}}),
        (["--batch-size", "4"], {"train": {"batch_size": "4"}}),
        (["--train.batch-size=4"], {"train": {"batch_size": "4"}}),
        (["--device", "cpu"], {"device": "cpu"}),
        (["--offline"], {"offline": True}),
        (["--norms"], {"method": {"norms": True}}),
        (["--no-norms"], {"method": {"norms": False}}),
        (["--method.no-norms"], {"method": {"norms": False}}),
        (["--norms", "false"], {"method": {"norms": "false"}}),
        (["--targets", "a,b"], {"method": {"targets": ["a", "b"]}}),
        (["--targets", "a", "--targets", "b,c"], {"method": {"targets": ["a", "b", "c"]}}),
        (["--targets", "re:x{1,2},y"], {"method": {"targets": ["re:x{1,2}", "y"]}}),
        (["--targets", '["a,b"]'], {"method": {"targets": ["a,b"]}}),
        (["--targets", "[!a]*"], {"method": {"targets": ["[!a]*"]}}),
        (["--baselines", "none"], {"baselines": []}),
        (["--ranks", "a=1,b.c=2"], {"method": {"ranks": {"a": "1", "b.c": "2"}}}),
        (["--ranks", '{"x=y": 1}'], {"method": {"ranks": {"x=y": 1}}}),
        (["--lr", "none"], {"train": {"lr": None}}),
        (["--inner.depth", "2"], {"method": {"inner": {"depth": "2"}}}),
        (["--method.inner.depth", "2"], {"method": {"inner": {"depth": "2"}}}),
        (["--rank", "4", "--rank", "5"], {"method": {"rank": "5"}}),
        (["--kind", "b"], {"method": {"kind": "b"}}),
        (["--bits", "2"], {"method": {"bits": 2}}),
        (["--bits", "all"], {"method": {"bits": "all"}}),
        (["--bits", "none"], {"method": {"bits": None}}),
        (["--bits", "3"], {"method": {"bits": "3"}}),
    ],
)
def test_flags_find_their_field(arguments, expected):
    assert read(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "1"], r"--seed is ambiguous: write --method.seed, --train.seed"),
        (["--rnak", "1"], r"--rnak: no such option\. Did you mean --rank"),
        (["--train.lrr", "1"], r"--train.lrr: no such option\. Did you mean --train.lr"),
        (["--rank"], "--rank needs a value"),
        (["--no-rank"], "--no-rank: no such option"),
        (["--zzzzzz", "1"], r"--zzzzzz: no such option\.$"),
    ],
)
def test_flags_that_mean_nothing(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read(*arguments)


def test_every_wrong_flag_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        read("--one", "1", "--two", "2", "--rank", "3")
    assert str(caught.value).count("no such option") == 2


def test_the_spelling_is_remembered():
    _, spelled = place(parse(["--rank", "1", "--train.lr", "2"]).flags, SECTIONS)
    assert spelled == {"method.rank": "--rank", "train.lr": "--train.lr"}
