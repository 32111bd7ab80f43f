"""Files with bytes put in, taken out and moved: a data set or one sentence, and no other error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from peftx.data.contract import DataContext
from peftx.errors import DataError
from peftx_timeseries.config.data import CsvConfig, LongConfig, TsfConfig
from peftx_timeseries.data import long, tables, tsf

Write = Callable[..., Path]

TSF = (
    "@relation x\n@attribute series_name string\n@attribute start date\n@frequency daily\n@horizon 2\n@data\n"
    + "".join(
        f"T{number}:2024-01-0{number} 00-00-00:{','.join(map(str, range(12)))}\n" for number in range(1, 6)
    )
)
PIECES = (
    b",",
    b"\n",
    b'"',
    b";",
    b"\t",
    b" ",
    b"\0",
    b"\xff",
    b"\r",
    b"-",
    b":",
    b"@",
    b"?",
    b"NaN",
    b"inf",
    b"1e999",
)
PIECES += (b"99999999999999999999", b"True", b"+01", b"Q1", b"24:00", b"2024")


def damaged(content: bytes, draw: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(found) + 1)
        way = draw.randrange(4)
        if way == 0:
            found[at:at] = draw.choice(PIECES)
        elif way == 1:
            del found[at : at + draw.choice([1, 2, 5, 40, 400])]
        elif way == 2:
            found[at : at + 1] = bytes([draw.randrange(256)])
        else:
            other = draw.randrange(len(found) + 1)
            found[at:at] = found[other : other + 60]
    return bytes(found)


@pytest.mark.parametrize("kind", ["wide", "long", "tsf", "parquet"])
def test_a_damaged_file_is_a_data_set_or_one_sentence(
    write: Write, table: Callable[..., pd.DataFrame], tmp_path: Path, kind: str
) -> None:
    frame = table(freq="D")
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(tmp_path / "whole")
        content = (tmp_path / "whole").read_bytes()
    elif kind == "long":
        held = frame.melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
        content = held.to_csv(index=False).encode()
    else:
        content = (TSF if kind == "tsf" else frame.to_csv(index=False)).encode()
    draw = random.Random(kind)
    name = {"tsf": "x.tsf", "parquet": "x.parquet"}.get(kind, "x.csv")
    ctx = DataContext(None, tmp_path / "cache", offline=True)
    outcomes = set()
    for number in range(60):
        path = write(content if not number else damaged(content, draw), name)
        try:
            if kind == "tsf":
                tsf.load(TsfConfig(path=path), ctx)
            elif kind == "long":
                long.load(LongConfig(path=path, regular=draw.choice(["refuse", "fill"])), ctx)
            else:
                duplicates = draw.choice(["refuse", "mean"])
                tables.load(
                    CsvConfig(path=path, regular=draw.choice(["sort", "fill"]), duplicates=duplicates), ctx
                )
            outcomes.add("read")
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 700, error
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
