"""A safetensors header that lies is found out before the bytes it speaks of are read."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from peftx.artifacts.reading import open_tensors, read_json
from peftx.errors import ArtifactError

GOOD = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int32), "empty": torch.zeros(0, 4)}


def _file(path: Path, header: Any, buffer: bytes = b"\0" * 24, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + buffer)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught, open_tensors(path) as file:
        file.read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes


def test_a_good_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(GOOD, metadata={"format": "pt"}))
    with open_tensors(path) as file:
        assert {key: entry.shape for key, entry in file.entries.items()} == {
            key: tuple(value.shape) for key, value in GOOD.items()
        }
        found = file.read()
    assert found.keys() == GOOD.keys() and all(torch.equal(found[key], GOOD[key]) for key in GOOD)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": _entry(data_offsets=[0, 20])}, "20 bytes, which is not its shape"),
        ({"a": _entry(data_offsets=[24, 0])}, "not its shape"),
        ({"a": _entry(data_offsets=[-24, 0])}, "not what they should be"),
        ({"a": _entry(shape=[2, 4], data_offsets=[0, 32])}, "the file holds 24"),
        ({"a": _entry(), "b": _entry()}, "overlaps"),
        (
            {"a": _entry(shape=[3], data_offsets=[0, 12]), "b": _entry(shape=[2], data_offsets=[16, 24])},
            "gap",
        ),
        ({"a": _entry(shape=[3], data_offsets=[0, 12])}, "tensors have 12 bytes"),
        ({"a": _entry(shape=[2**40, 2**40])}, "not its shape"),
        ({"a": _entry(shape=[10**30, 0], data_offsets=[0, 0])}, "not what they should be"),
        ({"a": _entry(shape=[True, 6])}, "not what they should be"),
        ({"a": _entry(shape=[2.0, 3.0])}, "not what they should be"),
        ({"a": _entry(shape="23")}, "not what they should be"),
        ({"a": _entry(shape=[2**61] * 17)}, "not what they should be"),
        ({"a": _entry(data_offsets=24)}, "not what they should be"),
        ({"a": _entry(data_offsets=[0, 24, 24])}, "not what they should be"),
        ({"a": _entry(dtype="PICKLE")}, "unknown type"),
        ({"a": _entry(dtype=["F32"])}, "unknown type"),
        ({"a": _entry(file="/etc/passwd")}, "does not describe"),
        ({"a": 3}, "does not describe"),
        ({"a": _entry(), "__metadata__": {"x": [1]}}, "metadata are not text"),
        ({"a": _entry(), "__metadata__": []}, "metadata are not text"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"[" * 50_000, "no JSON"),
        (b'{"a":' * 50_000, "no JSON"),
        (b"[]", "no table"),
        (b'{"a": 1' + b"0" * 6000 + b"}", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: Any, message: str) -> None:
    assert message in _refused(_file(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize("length", [0, 1, 10**4, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    assert "header would have" in _refused(_file(tmp_path / "x", {"a": _entry()}, length=length))


def test_a_large_file_with_a_bad_header_is_not_read(tmp_path: Path) -> None:
    path = _file(tmp_path / "x", {"a": _entry()}, b"")
    with path.open("ab") as stream:
        stream.truncate(2**33)  # sparse
    tracemalloc.start()
    assert "the file holds" in _refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_header_larger_than_any_adapter_needs(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as stream:
        stream.write((2**25).to_bytes(8, "little") + b"{")
        stream.truncate(2**26)
    assert "header would have" in _refused(path)


def test_absent_and_short_files(tmp_path: Path) -> None:
    assert "there is no file" in _refused(tmp_path / "gone")
    assert "there is no file" in _refused(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    assert "not a safetensors file" in _refused(tmp_path / "empty")


def test_another_file_than_the_one_meant(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(save(GOOD))
    with pytest.raises(ArtifactError, match="SHA-256 differs"), open_tensors(path) as file:
        file.read("0" * 64)


def test_a_number_beyond_json_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": -Infinity}')
    with pytest.raises(ArtifactError, match="no number of JSON"):
        read_json(tmp_path / "x.json", "a configuration")
