"""The state of a training that will go on: nested tensors, numbers and text as safetensors and JSON, never pickle.

Tensors stand in ``NAME.safetensors``, everything else, with the places of the tensors, in ``NAME.json``. As with
adapters, the tensors are written whole beside the old ones and renaming the JSON makes them the state, so a reader
finds the old one or the new one whenever the writing stops.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

import peftx
from peftx.artifacts.reading import DTYPES, LARGEST_JSON, open_tensors, read_json
from peftx.errors import AdapterError, ArtifactError

__all__ = ["load_state", "save_state"]

FORMAT, VERSION = "peftx-state", 1
_DEPTH = 100  # of lists and dicts in each other
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def save_state(state: Mapping[str, Any], folder: Path | str, name: str = "state") -> Path:
    """Write a state; one of that name already there is replaced.

    Args:
        state: a dict of tensors, numbers, strings, booleans, None, and dicts (keys: strings or whole numbers), lists
            and tuples of those. What comes back equals it, to the last bit and type; tensors come back on the CPU.
        folder: where to; made when missing.
        name: the files are ``NAME.json`` and ``NAME.safetensors``.

    Returns:
        The folder.

    Raises:
        AdapterError: something else is in the state.
        ArtifactError: the folder cannot be written.
    """
    _check_name(name)
    tensors: dict[str, Tensor] = {}
    encoded = _encode(dict(state), "", tensors, 0)
    payload = serialise(tensors)
    digest = hashlib.sha256(payload).hexdigest()
    text = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "peftx": peftx.__version__,
            "sha256": digest,
            "state": encoded,
        },
        indent=1,
        allow_nan=False,
    )
    if len(text.encode()) > LARGEST_JSON:
        raise AdapterError(
            f"the state's numbers and texts take {len(text.encode())} bytes as JSON, more than the {LARGEST_JSON} that "
            "are read back; keep long lists of numbers as tensors"
        )
    folder = Path(folder)
    waiting, part = folder / _waiting(name, digest), folder / f".{name}.json.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            waiting.write_bytes(payload)
            part.write_text(text + "\n", encoding="utf-8")
            for path in (
                waiting,
                part,
            ):  # a crash of the machine must not leave short files under the final names
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
            part.replace(folder / f"{name}.json")
        except BaseException:
            waiting.unlink(missing_ok=True)
            raise
        finally:
            part.unlink(missing_ok=True)
        waiting.replace(folder / f"{name}.safetensors")
        for left in folder.glob(_waiting(name, "*")):  # of writers that were stopped
            left.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"the state cannot be written to {folder}: {error.strerror or error}") from error
    return folder


def load_state(folder: Path | str, name: str = "state") -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        ArtifactError: there is none, it is damaged or incomplete, holds more or less than it says, or is of a newer
            release.
    """
    _check_name(name)
    folder = Path(folder)
    path = folder / f"{name}.json"
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {path.name}, so no state was saved there")
    data = read_json(path, "a state")
    if not isinstance(data, dict) or data.get("format") != FORMAT or type(data.get("version")) is not int:
        raise ArtifactError(f"{path} is not the state of a training")
    if data["version"] > VERSION:
        raise ArtifactError(
            f"{path} has format version {data['version']}, this peftx reads up to {VERSION}; upgrade peftx"
        )
    digest = data.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise _damaged(path, "it names no SHA-256 of its tensors")
    waiting = folder / _waiting(name, digest)
    # the writer may have been stopped between its two last renames
    with open_tensors(waiting if waiting.is_file() else folder / f"{name}.safetensors") as file:
        tensors = file.read(digest)
    state = _decode(data.get("state"), path, tensors, 0)
    if tensors:
        raise _damaged(path, f"its tensor {min(tensors)!r} has no place in it")
    if not isinstance(state, dict):
        raise _damaged(path, "it is no dict")
    return state


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise AdapterError(f"{name!r} cannot name a state; use letters, digits, - and _")


def _waiting(name: str, digest: str) -> str:
    return f".{name}.safetensors.{digest[:16]}.part"


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged: {why}; go on from another checkpoint")


def _encode(value: Any, where: str, tensors: dict[str, Tensor], depth: int) -> Any:
    """What JSON has stands for itself; all else is an object with one key, which says what it is."""
    if depth > _DEPTH:
        raise AdapterError(f"the state nests more than {_DEPTH} deep at {where[:80]!r}, or contains itself")
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, Tensor):
        return {"tensor": _store(value, where, tensors)}
    if type(value) in (list, tuple):
        items = [_encode(item, f"{where}[{n}]", tensors, depth + 1) for n, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if isinstance(value, Mapping):
        pairs = []
        for key, item in value.items():
            if type(key) not in (int, str):
                raise AdapterError(
                    f"the state's dict {where or 'itself'} has the key {key!r}; keys are strings or whole numbers"
                )
            pairs.append([key, _encode(item, f"{where}.{key}" if where else str(key), tensors, depth + 1)])
        return {"dict": pairs}
    raise AdapterError(
        f"the state holds a {type(value).__module__}.{type(value).__qualname__} at {where or 'its top'}; it may hold "
        "tensors, numbers, strings, lists and dicts"
    )


def _store(value: Tensor, where: str, tensors: dict[str, Tensor]) -> str:
    if value.layout != torch.strided or value.is_meta or value.dtype not in DTYPES.values():
        raise AdapterError(f"the state's tensor {where} ({value.dtype}, {value.layout}) cannot be stored")
    if hasattr(value, "placements"):
        raise AdapterError(f"the state's tensor {where} is sharded; gather it before it is stored")
    key = where  # to be read by people; two places may be spelled alike
    while key in tensors or key == "__metadata__":
        key += "'"
    # a copy: safetensors refuses tensors that share memory, which a state may
    tensors[key] = value.detach().to("cpu", copy=True).contiguous()
    return key


def _decode(value: Any, path: Path, tensors: dict[str, Tensor], depth: int) -> Any:
    if depth > _DEPTH:
        raise _damaged(path, "it nests too deep")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_decode(item, path, tensors, depth + 1) for item in value]
    kind, held = next(iter(value.items()), ("", None))
    if len(value) == 1:
        if kind == "number" and isinstance(held, str) and held in _NUMBERS:
            return _NUMBERS[held]
        if kind == "tensor" and isinstance(held, str):
            if held not in tensors:
                raise _damaged(path, f"its tensor {held[:80]!r} is missing, or is used twice")
            return tensors.pop(held)
        if kind == "tuple" and isinstance(held, list):
            return tuple(_decode(item, path, tensors, depth + 1) for item in held)
        if kind == "dict" and isinstance(held, list):
            return _decode_dict(held, path, tensors, depth)
    raise _damaged(path, f"it holds something of the unknown kind {str(kind)[:40]!r}")


def _decode_dict(pairs: list[Any], path: Path, tensors: dict[str, Tensor], depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in pairs:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or type(pair[0]) not in (int, str)
            or pair[0] in found
        ):
            raise _damaged(path, "one of its dicts has a key that is none, or one twice")
        found[pair[0]] = _decode(pair[1], path, tensors, depth + 1)
    return found
