"""Files from strangers: JSON and safetensors are checked for lies before their bytes are taken into memory.

A safetensors file is eight bytes (the length of the header, little-endian), a JSON header, and one buffer. Everything
the header claims is compared with the size of the file first, so a file cannot make its reader allocate what it does
not hold. The layout: https://github.com/huggingface/safetensors (section "Format").
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialise

from peftx.errors import ArtifactError

__all__ = ["DTYPES", "LARGEST_JSON", "TensorEntry", "TensorFile", "open_tensors", "read_json"]

#: bytes of JSON (a manifest, a configuration, a header) that are read at most
LARGEST_JSON = 16 * 1024**2

#: names of the format -> torch
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def read_json(path: Path, what: str) -> Any:
    """Parse a JSON file that nobody vouches for.

    Raises:
        ArtifactError: it cannot be read, is too large, is not UTF-8, nests too deep, says a key twice, or holds a
            number that JSON does not have (NaN, Infinity) or that is absurdly long.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise ArtifactError(f"{path} has {size} bytes, far more than {what}; refused")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error}); check it") from None
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}); the adapter is damaged, copy it again"
        ) from None
    try:
        return _parse(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not valid JSON ({error}); the adapter is damaged, copy it again"
        ) from None


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of one file must not read two things out of it."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What the header says of one tensor; the bytes are start..stop of the buffer."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """An open safetensors file whose header holds up; `read` takes the tensors."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self.size = os.fstat(stream.fileno()).st_size
        self._stream = stream
        self.entries = self._header()

    def _bad(self, why: str) -> ArtifactError:
        return ArtifactError(f"{self.path} is not a safetensors file ({why}); the adapter is damaged")

    def _header(self) -> dict[str, TensorEntry]:
        start = self._stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length < 2 or length > self.size - 8 or length > LARGEST_JSON:
            if start.startswith(b"PK") or (
                start.startswith(b"\x80") and start[1:2] in b"\x01\x02\x03\x04\x05"
            ):
                raise self._bad("it is a pickle, which could run any code, and was not opened")
            raise self._bad(f"its header would have {length} bytes, the file has {self.size}")
        try:
            header = _parse(self._stream.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self._bad(f"its header is no JSON: {error}") from None
        if not isinstance(header, dict):
            raise self._bad("its header is no table")
        notes = header.pop("__metadata__", {})
        if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
            raise self._bad("its metadata are not text")
        entries = {key: self._entry(key, value) for key, value in header.items()}
        self._check_offsets(entries, self.size - 8 - length)
        return entries

    def _entry(self, key: str, said: Any) -> TensorEntry:
        if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._bad(f"its header does not describe {key[:80]!r}")
        shape, offsets, name = said["shape"], said["data_offsets"], said["dtype"]
        if not (_sizes(shape, 16) and _sizes(offsets, 2) and len(offsets) == 2):
            raise self._bad(f"shape and offsets of {key[:80]!r} are not what they should be")
        if not isinstance(name, str) or name not in DTYPES:
            raise self._bad(f"{key[:80]!r} is of the unknown type {str(name)[:20]!r}")
        dtype = DTYPES[name]
        if math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
            raise self._bad(
                f"{key[:80]!r} has {offsets[1] - offsets[0]} bytes, which is not its shape's number"
            )
        return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])

    def _check_offsets(self, entries: dict[str, TensorEntry], size: int) -> None:
        """The tensors fill the buffer one after the other: no overlap, no gap, nothing beyond."""
        at = 0
        for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != at:
                raise self._bad(f"{key[:80]!r} overlaps its neighbour or leaves a gap")
            at = entry.stop
        if at != size:
            raise self._bad(f"its tensors have {at} bytes, the file holds {size}")

    def read(self, sha256: str | None = None) -> dict[str, torch.Tensor]:
        """The tensors.

        Raises:
            ArtifactError: the file is not the one with that SHA-256, or changed while it was read.
        """
        self._stream.seek(0)
        payload = self._stream.read(self.size + 1)
        if sha256 is not None and hashlib.sha256(payload).hexdigest() != sha256:
            raise ArtifactError(
                f"{self.path} is not the file its manifest was written for (SHA-256 differs); copy it again"
            )
        try:
            tensors = deserialise(payload)
        except (SafetensorError, ValueError, KeyError) as error:
            raise self._bad(str(error)) from None
        found = {key: (value.dtype, tuple(value.shape)) for key, value in tensors.items()}
        if found != {key: (entry.dtype, entry.shape) for key, entry in self.entries.items()}:
            raise self._bad("it changed while it was read")
        return tensors


def _sizes(value: Any, most: int) -> bool:
    """A short list of whole numbers: a product of many large ones alone could keep a reader busy for hours."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(number) is int and 0 <= number < 2**62 for number in value)
    )


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file and check its header against its size; the tensors are read on demand.

    Raises:
        ArtifactError: there is no such file, it cannot be read, or its header lies.
    """
    try:
        if not path.is_file():
            raise ArtifactError(f"there is no file {path}; the adapter is incomplete, copy it again")
        with path.open("rb") as stream:
            yield TensorFile(path, stream)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error}); check it") from None
