from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftx.config.toml import dumps, read
from peftx.errors import ConfigError

# TOML is UTF-8: lone surrogates cannot be written at all.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
VALUES = SCALARS | st.lists(SCALARS, max_size=4)
TABLES = st.recursive(
    st.dictionaries(TEXT, VALUES, max_size=4),
    lambda inner: st.dictionaries(TEXT, VALUES | inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(TABLES)
def test_round_trip(table):
    assert tomllib.loads(dumps(table)) == table


def test_shape_of_a_written_run():
    table = {
        "seed": 0,
        "out": Path("runs") / "a",
        "device": None,
        "method": {"name": "core.lora", "alpha": None, "rank": 8, "ranks": {"a.b": 4}},
        "train": {"lr": 1e-05, "names": ("x", None), "pairs": [{"a": 1, "b": None}]},
        "data": {},
    }
    text = dumps(table)
    assert text == (
        'seed = 0\nout = "runs/a"\n\n[method]\nname = "core.lora"\nrank = 8\n\n[method.ranks]\n"a.b" = 4\n\n'
        '[train]\nlr = 1e-05\nnames = ["x"]\npairs = [{a = 1}]\n\n[data]\n'
    )
    assert tomllib.loads(text)["method"] == {"name": "core.lora", "rank": 8, "ranks": {"a.b": 4}}


def test_special_floats_survive():
    back = tomllib.loads(dumps({"a": math.inf, "b": -math.inf, "c": math.nan, "d": 1e22, "e": 5e-324}))
    assert (back["a"], back["b"], back["d"], back["e"]) == (math.inf, -math.inf, 1e22, 5e-324)
    assert math.isnan(back["c"])


def test_what_toml_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="TOML cannot hold a object"):
        dumps({"a": object()})


def test_reading_names_the_file_and_the_line(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match=r"no configuration file at .*run\.toml"):
        read(path)
    path.write_text("a = 1\nb = = 2\n")
    with pytest.raises(ConfigError, match=r"run\.toml is not valid TOML: .*line 2"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read"):
        read(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path)
