"""record.json: what it says, and what a damaged one is answered with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from peftx.errors import RunError
from peftx.runs import record as records


def test_figures_that_are_not_finite_become_null_and_the_rest_is_exact(tmp_path: Path) -> None:
    record = {"format": 1, "x": [0.1 + 0.2, math.nan, {"y": -math.inf}], "path": Path("a")}
    records.write(tmp_path, record)
    assert records.read(tmp_path) == {"format": 1, "x": [0.1 + 0.2, None, {"y": None}], "path": "a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": "x"}', "damaged"),
        (json.dumps({"format": records.FORMAT + 1}), "written by a later peftx"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(RunError, match=words) as caught:
        records.read(tmp_path)
    assert "record.json" in str(caught.value)


def test_no_folder_no_run_and_half_a_run_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder at"):
        records.read(tmp_path / "nowhere")
    with pytest.raises(RunError, match="not a run folder"):
        records.read(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunError, match="did not finish"):
        records.read(tmp_path)
