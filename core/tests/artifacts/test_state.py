"""The state of a training: what comes back is what went in, and a damaged one is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peftx.artifacts import state as module
from peftx.artifacts.state import load_state, save_state
from peftx.errors import AdapterError, ArtifactError


def same(a: Any, b: Any) -> bool:
    """Equality of types and bits, all the way down."""
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(
                a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
            )
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def example() -> dict[str, Any]:
    return {
        "steps": 7,
        "huge": 2**80,
        "rate": 0.1 + 0.2,
        "tiny": 5e-324,
        "best": -math.inf,
        "loss": math.nan,
        "on": True,
        "off": False,
        "none": None,
        "text": "ä\n\"::\u2028'",
        "": {"": 1},
        "__metadata__": torch.ones(1),
        "dict": {"number": "inf", "tensor": "x", "deep": [[], {}, ((1,), [2.0])]},
        "by_step": {3: "three", "3": "text", -1: torch.tensor([1.5])},
        "x": torch.randn(3, 4),
        "view": torch.arange(12.0).view(3, 4).t(),
        "half": torch.randn(5).bfloat16(),
        "mask": torch.tensor([True, False]),
        "counts": [torch.tensor(3), torch.tensor([2**62])],
        "empty": torch.empty(0, 4),
        "a": {"b.c": torch.ones(1)},
        "a.b": {"c": torch.zeros(1)},
        "generator": torch.Generator().manual_seed(1).get_state(),
    }


def test_everything_comes_back(tmp_path: Path) -> None:
    state = example()
    assert save_state(state, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert {file.name for file in (tmp_path / "new" / "folder").iterdir()} == {
        "state.json",
        "state.safetensors",
    }
    assert same(load_state(tmp_path / "new" / "folder"), state)


@pytest.mark.parametrize("state", [{}, {"a": {}}, {"a": 1}, {"a": torch.ones(2)}, {"": torch.ones(2)}])
def test_small_ones(tmp_path: Path, state: dict[str, Any]) -> None:
    save_state(state, tmp_path, "schedule")
    assert same(load_state(tmp_path, "schedule"), state)


def test_tensors_that_share_memory_and_parameters(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    parameter = nn.Parameter(whole.clone())
    save_state({"whole": whole, "part": whole[2:4], "again": whole, "parameter": parameter}, tmp_path)
    back = load_state(tmp_path)
    assert torch.equal(back["part"], whole[2:4]) and torch.equal(back["again"], whole)
    assert type(back["parameter"]) is Tensor and torch.equal(back["parameter"], whole)
    back["whole"].zero_()
    assert torch.equal(back["again"], whole)


def test_states_lie_side_by_side_and_are_replaced(tmp_path: Path) -> None:
    save_state({"a": torch.ones(1)}, tmp_path, "one")
    save_state({"b": torch.ones(2)}, tmp_path, "two")
    save_state({"c": torch.ones(3)}, tmp_path, "one")
    assert list(load_state(tmp_path, "one")) == ["c"] and list(load_state(tmp_path, "two")) == ["b"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "builtins.set at outer.inner"),
        (torch.float32, "torch.dtype at outer.inner"),
        (nn.Linear(1, 1), "Linear"),
        ({(1, 2): 3}, r"outer.inner has the key \(1, 2\)"),
        ({True: 3}, "has the key True"),
        (torch.ones(2).to_sparse(), "cannot be stored"),
        (torch.ones(2, device="meta"), "cannot be stored"),
        (torch.ones(2, dtype=torch.complex64), "cannot be stored"),
        (torch.distributions, "builtins.module"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(
    tmp_path: Path, value: Any, words: str
) -> None:
    with pytest.raises(AdapterError, match=words) as caught:
        save_state({"outer": {"inner": value}}, tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_a_state_that_contains_itself(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(AdapterError, match="contains itself"):
        save_state(loop, tmp_path)


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a.b", "-x"])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(AdapterError, match="cannot name a state"):
        save_state({}, tmp_path, name)
    with pytest.raises(AdapterError, match="cannot name a state"):
        load_state(tmp_path, name)


@pytest.mark.parametrize("stop", ["state.json", "state.safetensors"])
def test_whenever_the_writing_stops_a_whole_state_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    old, new = {"n": 1, "x": torch.ones(2)}, {"n": 2, "x": torch.zeros(2)}
    save_state(old, tmp_path)
    replace = Path.replace

    def stopped(self: Path, target: Path) -> Path:
        if Path(target).name == stop:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_state(new, tmp_path)
    monkeypatch.undo()
    assert same(load_state(tmp_path), old if stop == "state.json" else new)
    save_state(new, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"state.json", "state.safetensors"}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        save_state({}, tmp_path / "file")


def _edit(folder: Path, **changes: Any) -> None:
    data = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(data | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other"}, "not the state of a training"),
        ({"version": "1"}, "not the state of a training"),
        ({"version": 2}, "upgrade peftx"),
        ({"sha256": "0" * 64}, "SHA-256 differs"),
        ({"sha256": "../../x"}, "names no SHA-256"),
        ({"state": 3}, "has no place"),
        ({"state": {"dict": []}}, "has no place"),
        ({"state": {"tensor": "x"}}, "no dict"),
        ({"state": {"dict": [["a", {"tensor": "y"}], ["b", {"tensor": "x"}]]}}, "missing, or is used twice"),
        ({"state": {"dict": [["a", {"tensor": "x"}], ["b", {"tensor": "x"}]]}}, "missing, or is used twice"),
        ({"state": {"dict": [["a", 1], ["a", {"tensor": "x"}]]}}, "one twice"),
        ({"state": {"dict": [[[], 1]]}}, "key that is none"),
        ({"state": {"dict": [["a"]]}}, "key that is none"),
        ({"state": {"dict": [["a", {"call": "x"}]]}}, "unknown kind 'call'"),
        ({"state": {"dict": [["a", {"number": "1"}]]}}, "unknown kind"),
        ({"state": {"dict": [["a", {"number": []}]]}}, "unknown kind"),
        ({"state": {"dict": [["a", {}]]}}, "unknown kind"),
        ({"state": {"dict": {}}}, "unknown kind"),
        ({"state": {"tuple": [], "dict": []}}, "unknown kind"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    save_state({"x": torch.ones(2)}, tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=words) as caught:
        load_state(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_state_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    save_state({}, tmp_path)
    deep: Any = 1
    for _ in range(module._DEPTH + 2):
        deep = [deep]
    _edit(tmp_path, state={"dict": [["a", deep]]})
    with pytest.raises(ArtifactError, match="too deep"):
        load_state(tmp_path)


def test_tensors_that_are_missing_or_changed(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no state\.json"):
        load_state(tmp_path)
    save_state({"x": torch.ones(2)}, tmp_path)
    file = tmp_path / "state.safetensors"
    payload = bytearray(file.read_bytes())
    payload[-1] ^= 1
    file.write_bytes(payload)
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        load_state(tmp_path)
    file.unlink()
    with pytest.raises(ArtifactError, match="no file"):
        load_state(tmp_path)


def test_a_state_too_large_to_be_read_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_JSON", 200)
    with pytest.raises(AdapterError, match="as tensors"):
        save_state({"long": list(range(100))}, tmp_path / "x")
    assert not (tmp_path / "x").exists()
