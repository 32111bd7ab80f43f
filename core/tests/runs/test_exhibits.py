"""Samples that a task shows: kept whole, bounded, and never at the cost of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peftx.runs.exhibits import MOST, exhibit, keep_samples
from peftx.tasks import Scores
from peftx.training import Backend


class Showing:
    """As much of a task as is asked here."""

    def __init__(self, found: Any) -> None:
        self.found, self.asked = found, []  # type: ignore[var-annotated]

    def exhibit(self, model: nn.Module, split: str, details: Any, **where: Any) -> Any:
        self.asked.append((split, details, model.training, where["device"].type))
        torch.rand(3)
        return self.found() if callable(self.found) else self.found


def shown(found: Any, scores: dict[str, Any]) -> tuple[dict[str, Any], Showing, list[str]]:
    task, notes = Showing(found), []  # type: ignore[var-annotated]
    model = nn.Linear(2, 2).train()
    before = torch.get_rng_state()
    made = exhibit(task, model, scores, Backend("cpu"), notes.append)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state()) and model.training
    return made, task, notes


def test_the_test_split_is_shown_or_the_last_that_has_details() -> None:
    val, test = Scores({"a": 1.0}, {"n": 1}), Scores({"a": 1.0}, {"n": 2})
    made, task, _ = shown({"x": 1}, {"val": val, "test": test})
    assert made == {"test": {"x": 1}} and task.asked == [("test", {"n": 2}, False, "cpu")]
    assert shown({"x": 1}, {"val": val})[0] == {"val": {"x": 1}}
    assert shown({"x": 1}, {"val": val, "test": {"a": 1.0}})[0] == {"val": {"x": 1}}
    assert shown({"x": 1}, {"val": {"a": 1.0}})[0] == {}
    assert shown({}, {"val": val})[0] == {}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda: 1 / 0, "division by zero"),
        ({"x": object()}, "not JSON serializable"),
        ({"x": "a" * MOST}, "are the most"),
    ],
)
def test_what_fails_is_a_note(found: Any, words: str) -> None:
    made, _, notes = shown(found, {"test": Scores({}, {"n": 1})})
    assert made == {} and len(notes) == 1 and words in notes[0] and "\n" not in notes[0]


def test_the_file_is_whole_and_only_there_where_there_is_something(tmp_path: Path) -> None:
    keep_samples(tmp_path, "core.lora", {})
    assert not list(tmp_path.iterdir())
    keep_samples(tmp_path, "core.lora", {"test": {"x": float("nan")}})
    assert json.loads((tmp_path / "samples.json").read_text()) == {
        "format": 1,
        "rows": {"core.lora": {"test": {"x": None}}},
    }
