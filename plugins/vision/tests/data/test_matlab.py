"""MATLAB files: arrays of numbers, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from peftx.errors import DataError
from peftx_vision.data.matlab import read_arrays


def test_arrays_come_in_the_order_asked_for(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"x": [1, 2], "y": np.eye(2), "z": "text"}, do_compression=True)
    y, x = read_arrays(tmp_path / "a.mat", "y", "x")
    assert x.tolist() == [[1, 2]] and np.array_equal(y, np.eye(2))
    for name in ("z", "absent"):
        with pytest.raises(DataError, match=f"has no array of numbers called '{name}'"):
            read_arrays(tmp_path / "a.mat", name)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 300, None])
def test_what_is_no_matlab_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.random.default_rng(0).random(500)}, do_compression=True)
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(DataError, match=r"a\.mat") as caught:
        read_arrays(path, "x")
    assert "\n" not in str(caught.value)
