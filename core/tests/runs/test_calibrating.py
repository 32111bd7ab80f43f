"""What held-out samples say: kept whole, bounded, never at the cost of a run, and made up for later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peftx.config.run import RunConfig
from peftx.plugins.registry import Registry
from peftx.runs import evaluate, execute
from peftx.runs.calibrating import MOST, calibrate, keep_calibration, read_calibration
from peftx.training import Backend


class Measuring:
    """As much of a task as is asked here."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def calibrate(self, model: nn.Module, splits: Any, **where: Any) -> Any:
        assert not model.training and where["device"].type == "cpu"
        torch.rand(3)
        return self.found() if callable(self.found) else self.found | {"splits": splits}


def measured(found: Any) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    model = nn.Linear(2, 2).train()
    before = torch.get_rng_state()
    made = calibrate(Measuring(found), model, ["val"], Backend("cpu"), notes.append)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state()) and model.training
    return made, notes


def test_it_is_kept_and_read_again(tmp_path: Path) -> None:
    made, notes = measured({"spread": [1.0, float("nan")]})
    assert not notes and made["splits"] == ["val"]
    keep_calibration(tmp_path, {})
    assert not list(tmp_path.iterdir()) and read_calibration(tmp_path) == {}
    keep_calibration(tmp_path, made)
    assert read_calibration(tmp_path) == {"spread": [1.0, None], "splits": ["val"]}
    for damaged in ("{", "[]", '{"format": 1}', '{"calibration": 3}'):
        (tmp_path / "calibration.json").write_text(damaged)
        assert read_calibration(tmp_path) == {}


@pytest.mark.parametrize(
    ("found", "words"),
    [(lambda: 1 / 0, "division by zero"), ({"x": object()}, "not JSON"), ({"x": "a" * MOST}, "are the most")],
)
def test_what_fails_is_a_note(found: Any, words: str) -> None:
    made, notes = measured(found)
    assert made == {} and len(notes) == 1 and words in notes[0] and "\n" not in notes[0]


@pytest.mark.parametrize("report", [True, False])
def test_a_run_keeps_it_and_scoring_again_makes_up_for_it(
    registry: Registry, tmp_path: Path, report: bool
) -> None:
    config = {"task": "toy", "out": tmp_path / "run", "device": "cpu", "baselines": [], "efficiency": False}
    execute(RunConfig.model_validate(config | {"report": report}), registry)
    path = tmp_path / "run" / "calibration.json"
    assert path.is_file() is report
    assert evaluate(tmp_path / "run", registry).exact
    assert json.loads(path.read_text())["calibration"] == {"splits": ["val", "test"]}
