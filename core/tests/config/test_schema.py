from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from peftx.config.schema import row, rows, section_options


class Inner(BaseModel):
    depth: int = Field(1, description="how deep")


class Thing(BaseModel):
    rank: int = Field(8, ge=1, lt=65, description="the rank")
    path: Path = Field(description="where")
    kind: Literal["a", "b"] = Field("a", description="which")
    flag: bool = Field(False, description="whether")
    on: bool = Field(True, description="whether not")
    names: list[str] = Field(["x", "y"], description="who")
    ranks: dict[str, int] = Field({}, description="each")
    lr: float | None = Field(None, description="speed (default: the recipe's)")
    mixed: int | str = Field(3, description="either")
    inner: Inner = Field(default_factory=lambda: Inner())


def lines():
    return {shown.flag: (shown.usage, shown.note) for shown in rows(Thing, "method")}


def test_the_table_of_a_schema():
    assert lines() == {
        "--method.rank": ("--method.rank INT", "the rank [>= 1 and < 65; default 8]"),
        "--method.path": ("--method.path PATH", "where [required]"),
        "--method.kind": ("--method.kind a|b", "which [default a]"),
        "--method.flag": ("--method.flag", "whether"),
        "--method.on": ("--method.on", "whether not [default true]"),
        "--method.names": ("--method.names A,B,...", "who [default x,y]"),
        "--method.ranks": ("--method.ranks KEY=VALUE,...", "each [default none]"),
        "--method.lr": ("--method.lr FLOAT", "speed (default: the recipe's)"),
        "--method.mixed": ("--method.mixed INT|TEXT", "either [default 3]"),
        "--method.inner.depth": ("--method.inner.depth INT", "how deep [default 1]"),
    }


def test_short_flags_leave_the_section_out():
    (rank, *_) = section_options(Thing)
    assert row(rank, "method", {"method.rank"}).flag == "--rank"
    assert row(rank, "method").flag == "--method.rank"


def test_no_schema_has_no_options():
    assert rows(None) == [] and section_options(None) == []


def test_rows_are_plain_data():
    assert rows(Thing)[0].to_dict() == {
        "flag": "--rank",
        "type": "INT",
        "default": "8",
        "help": "the rank",
        "bounds": ">= 1 and < 65",
    }
