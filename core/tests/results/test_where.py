"""The language of --where: what each expression finds, what is refused, and that no text becomes SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftx.errors import ConfigError
from peftx.results import Index
from peftx.results.where import KEYS


@pytest.fixture(scope="module")
def index(
    tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path], make_row: Callable[..., Any]
) -> Iterator[Index]:
    """Four runs; the first brings a baseline."""
    root = tmp_path_factory.mktemp("runs")
    write, row = write_run, make_row
    lora, dora = row("core.lora", 97.0), row("core.dora", 98.0, seconds=9.0)
    dora["metrics"]["test"]["F1, macro"] = 0.5
    write(root / "a", lora, row("core.head", 80.0, trainable=20), seed=0, started="2026-03-01T10:00:00+00:00")
    write(root / "b", dora, seed=1, options={"rank": 16, "flag": True, "name": "x'; DROP TABLE runs; --"})
    write(root / "c", method="core.full", status="failed", error="loss is NaN", train={"lr": 0.001}, seed=2)
    write(
        root / "d",
        method="core.lora",
        tested=False,
        test=50.0,
        data={"name": "toy.Far", "limit": 100},
        seed=3,
    )
    with Index(root, memory=True) as found:
        yield found


def found(index: Index, *expressions: str) -> str:
    """Names of the runs, a baseline's in capitals."""
    names = [(Path(e.folder).name, e.baseline) for e in index.entries(expressions, sort=["run"])]
    return "".join(name.upper() if baseline else name for name, baseline in names)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("method=core.lora", "ad"),
        ("method == core.lora", "ad"),
        ("method!=core.lora", "Abc"),
        ("method~LORA", "ad"),
        ("method!~lora", "Abc"),
        ("data~far", "d"),
        ("seed<2", "aAb"),
        ("seed>=2", "cd"),
        ("seed=1.0", "b"),
        ("status=complete", "aAbd"),
        ("status=failed", "c"),
        ("state=scored", "aAbd"),
        ("error~nan", "c"),
        ("error=none", "aAbd"),
        ("test>=97", "ab"),
        ("test=none", "cd"),
        ("test!=none", "aAb"),
        ("val>60", "aAb"),
        ("test.accuracy>=97", "ab"),
        ("test.accuracy<97", "A"),
        ("test.F1, macro=0.5", "b"),
        ("baseline=true", "A"),
        ("baseline=false", "abcd"),
        ("tested=false", "d"),
        ("trainable<100", "A"),
        ("seconds>5", "b"),
        ("started<2026-03-02", "aAbcd"),
        ("started>2026-03-01T10:00:00+00:00", ""),
        ("option.rank=8", "ad"),
        ("option.rank=8.0", "ad"),
        ("option.rank!=8", "b"),
        ("option.rank>8", "b"),
        ("option.rank=none", "Ac"),
        ("option.flag=true", "b"),
        ("option.flag!=false", "b"),
        ("option.name~drop table", "b"),
        ("option.name=x'; DROP TABLE runs; --", "b"),
        ("train.lr<0.01", "c"),
        ("train.lr=1e-2", "aAbd"),
        ("data.limit=100", "d"),
        ("run~B", "b"),
    ],
)
def test_what_an_expression_finds(index: Index, expression: str, names: str) -> None:
    assert found(index, expression) == names


def test_several_are_anded(index: Index) -> None:
    assert found(index, "method=core.lora", "tested=true") == "a"
    assert found(index, "method=core.lora", "seed=1") == ""


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "is no expression"),
        ("method", "is no expression"),
        ("=3", "is no expression"),
        ("methd=core.lora", "no run here has 'methd'. Did you mean method?"),
        ("rank=8", "no run here has 'rank'. Did you mean option.rank?"),
        ("test.acuracy>3", "Did you mean test.accuracy"),
        ("option.rnak=8", "Did you mean option.rank"),
        ("zzzz=8", "Keys: run, started"),
        ("seed=one", "'one' is not a number, and seed = needs one"),
        ("seed~1", "seed is a number, which holds no text"),
        ("test>nan", "'nan' is not a number"),
        ("method<core", "method is text, which has no order"),
        ("option.rank<big", "'big' is not a number"),
    ],
)
def test_what_is_refused(index: Index, expression: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(index, expression)
    assert message in str(caught.value) and repr(expression) in str(caught.value)


def test_every_key_of_all_rows_can_be_asked_and_sorted_by(index: Index) -> None:
    for key, (_, kind) in KEYS.items():
        value = "2026" if kind == "time" else "1"
        assert isinstance(found(index, f"{key}={value}"), str)
        assert len(index.entries(sort=[key, f"-{key}"])) == 5
    assert {"test.accuracy", "option.rank", "train.lr", "data.limit", *KEYS} <= set(index.keys())


def test_an_empty_index_knows_no_keys_and_refuses_none(tmp_path: Path) -> None:
    with Index(tmp_path, memory=True) as empty:
        assert empty.entries(["option.rank=8", "test.wer<3"]) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    key=st.sampled_from(["method", "option.name", "test.accuracy", "error", "'; DROP TABLE runs; --"])
    | st.text(max_size=12),
    sign=st.sampled_from(["=", "!=", "<", ">=", "~", "!~"]),
    value=st.sampled_from(["' OR 1=1 --", "x'); DELETE FROM runs; --", '"', "?", "%", "\0"])
    | st.text(max_size=12),
)
def test_no_text_becomes_sql(index: Index, key: str, sign: str, value: str) -> None:
    """Any text either finds rows, or none, or is refused in a sentence; what is in the index stays."""
    try:
        assert len(index.entries([f"{key}{sign}{value}"])) <= 5
    except ConfigError as error:
        assert str(error).startswith("--where ")
    assert len(index.entries()) == 5


def test_bytes_that_are_no_text_find_nothing(index: Index) -> None:
    assert found(index, "method=\udcff") == "" and found(index, "method~\udcff") == ""
    with pytest.raises(ConfigError, match="no run here has"):
        index.entries(sort=["\udcff"])


def test_quotes_and_wildcards_are_plain_text(index: Index) -> None:
    assert found(index, "method=' OR '1'='1") == ""
    assert found(index, "method~%") == "" and found(index, "method~_") == ""
    assert found(index, "option.name~'; d") == "b"
