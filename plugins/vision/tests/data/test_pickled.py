"""The reader of pickled numbers: Python 2's official bytes, Python 3's, hostile ones, damaged ones."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftx.errors import DataError
from peftx_vision.data.cifar_classes import CIFAR10_CLASSES
from peftx_vision.data.pickled import _OPCODES, read_numbers


class PythonTwo:
    """Writes what Python 2's cPickle wrote for the official files: protocol 2, byte strings, memo from 1."""

    def __init__(self) -> None:
        self.memo = 1

    def put(self) -> bytes:
        number = self.memo
        self.memo += 1
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def write(self, value: Any) -> bytes:
        if isinstance(value, str):
            raw = value.encode("latin-1")
            return b"U" + bytes([len(raw)]) + raw + self.put()
        if isinstance(value, bytes):
            return b"T" + struct.pack("<i", len(value)) + value + self.put()
        if isinstance(value, int):
            return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
        if isinstance(value, list):
            return b"]" + self.put() + b"(" + b"".join(map(self.write, value)) + b"e"
        if isinstance(value, dict):
            start = b"}" + self.put() + b"("  # first, so that the dictionary has the first memo entry
            return start + b"".join(self.write(key) + self.write(item) for key, item in value.items()) + b"u"
        assert isinstance(value, np.ndarray)
        start = b"cnumpy.core.multiarray\n_reconstruct\n" + self.put() + b"cnumpy\nndarray\n" + self.put()
        start += b"K\x00\x85" + self.put() + self.write("b") + b"\x87" + self.put() + b"R" + self.put()
        shape = b"".join(map(self.write, value.shape)) + b"\x86" + self.put()
        kind = (
            b"cnumpy\ndtype\n"
            + self.put()
            + self.write("u1")
            + b"K\x00K\x01\x87"
            + self.put()
            + b"R"
            + self.put()
        )
        kind += (
            b"(K\x03" + self.write("|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t" + self.put() + b"b"
        )
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        raw = self.write(value.tobytes(order="F" if fortran else "C"))
        return (
            start
            + b"(K\x01"
            + shape
            + kind
            + (b"\x88" if fortran else b"\x89")
            + raw
            + b"t"
            + self.put()
            + b"b"
        )


def python_two(value: Any) -> bytes:
    return b"\x80\x02" + PythonTwo().write(value) + b"."


def read(tmp_path: Path, raw: bytes) -> dict[str, Any]:
    path = tmp_path / "batch"
    path.write_bytes(raw)
    return read_numbers(path)


def test_the_official_meta_file_byte_for_byte(tmp_path: Path) -> None:
    raw = python_two({"num_cases_per_batch": 10_000, "label_names": list(CIFAR10_CLASSES), "num_vis": 3072})
    # the published checksum of cifar-10-batches-py/batches.meta: so these bytes are the official file
    assert hashlib.md5(raw).hexdigest() == "5ff9c542aee3614f3951f8cda6e48888"
    assert read(tmp_path, raw) == {
        "num_cases_per_batch": 10_000,
        "label_names": [name.encode() for name in CIFAR10_CLASSES],
        "num_vis": 3072,
    }


@pytest.mark.parametrize("fortran", [False, True])
def test_an_array_as_python_two_wrote_it(tmp_path: Path, fortran: bool) -> None:
    pixels = np.arange(600, dtype=np.uint8).reshape(20, 30)
    raw = python_two({"labels": [3, 1], "data": np.asfortranarray(pixels) if fortran else pixels})
    assert np.array_equal(pickle.loads(raw, encoding="latin1")["data"], pixels)  # the writer above is right
    found = read(tmp_path, raw)
    assert found["labels"] == [3, 1]
    assert found["data"].dtype == np.uint8 and np.array_equal(found["data"], pixels)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4"])
def test_an_array_as_python_three_writes_it(tmp_path: Path, protocol: int, dtype: str) -> None:
    values = np.arange(-6 if dtype != "uint8" else 0, 6, dtype=dtype).reshape(-1, 2)
    found = read(
        tmp_path, pickle.dumps({"data": values, "fine_labels": [99, 300, -1, None, True]}, protocol=protocol)
    )
    assert np.array_equal(found["data"], values)
    assert found["fine_labels"] == [99, 300, -1, None, True]


def test_many_memo_entries(tmp_path: Path) -> None:
    names = [f"image_{index}.png" for index in range(400)]
    assert read(tmp_path, python_two({"filenames": names}))["filenames"] == [name.encode() for name in names]


class Harmful:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: Path) -> dict[str, bytes]:
    """Pickles that would touch `marker`, or do worse, when unpickled."""
    import os

    touch = f"open({str(marker)!r}, 'w').close()"
    harmful = {
        "system": pickle.dumps({"data": Harmful(os.system, f"touch {marker}")}, protocol=2),
        "eval": pickle.dumps({"data": Harmful(eval, touch)}, protocol=4),
        "exec in a list": pickle.dumps({"labels": [1, Harmful(exec, touch)]}, protocol=5),
        "import": b"\x80\x02}U\x04datac__builtin__\n__import__\nU\x02os\x85Rs.",
        "getattr": b"\x80\x04}\x8c\x04data\x8c\x08builtins\x8c\x07getattr\x93s.",
        "numpy load": b"\x80\x02}U\x04datacnumpy\nload\nU\x01x\x85Rs.",
        "dotted": b"\x80\x02}U\x04datacnumpy\nndarray.tofile\nU\x01x\x85Rs.",
        "calls ndarray": b"\x80\x02}U\x04datacnumpy\nndarray\nK\x05\x85Rs.",
        "objects": b"\x80\x02}U\x04datacnumpy\ndtype\nU\x01OK\x00K\x01\x87Rs.",
        "instance": b"\x80\x02}U\x04data(cos\nsystem\nU\x02lsos.",
        "newobj": b"\x80\x02}U\x04datacnumpy\nndarray\n)\x81s.",
        "persistent": b"\x80\x02}U\x04dataU\x01xQs.",
        "extension": b"\x80\x02}U\x04data\x82\x01s.",
        "text protocol": pickle.dumps({"data": [1]}, protocol=0),
    }
    return harmful


@pytest.mark.parametrize("name", sorted(hostile(Path("marker"))))
def test_a_hostile_pickle_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(DataError, match="was not read: it ") as caught:
        read(tmp_path, hostile(marker)[name])
    assert "\n" not in str(caught.value) and str(tmp_path / "batch") in str(caught.value)
    assert not marker.exists()


def test_no_opcode_can_act() -> None:
    names = {info.name for info in pickletools.opcodes if info.code.encode("latin-1") in _OPCODES}
    assert len(names) == len(_OPCODES)
    # these import, call or instantiate; GLOBAL, STACK_GLOBAL, REDUCE and BUILD are answered by fixed tables
    assert not names & {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}


def test_damaged_pickles_are_refused_whatever_the_damage(tmp_path: Path) -> None:
    whole = python_two({"labels": [3, 1], "data": np.arange(60, dtype=np.uint8).reshape(2, 30)})
    for length in range(len(whole) - 1):
        with pytest.raises(DataError):
            read(tmp_path, whole[:length])
    draw = random.Random(0)
    for _ in range(500):
        raw = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        # a changed pixel or label is still a table; anything else must be this one error
        try:
            read(tmp_path, bytes(raw))
        except DataError as error:
            assert str(tmp_path / "batch") in str(error)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a list, but a dictionary"):
        read(tmp_path, pickle.dumps([1], protocol=2))
    with pytest.raises(DataError, match=r"was not read|damaged"):
        read(tmp_path, b"<html>not found</html>")
    with pytest.raises(DataError, match="cannot read"):
        read_numbers(tmp_path / "absent")
