"""SVHN: zero is class 0, and one sentence for each way a file can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import TrainTestConfig
from peftx_vision.data.svhn import load, read_file

X = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(32, 32, 3, 2)


def test_ten_is_zero_and_the_last_axis_counts_the_images(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": X, "y": np.array([[10], [9]], dtype=np.uint8)})
    images, labels = read_file(tmp_path / "a.mat")
    assert labels.tolist() == [0, 9] and labels.dtype == np.int64
    assert images.shape == (2, 32, 32, 3) and np.array_equal(images[1], X[..., 1])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"X": X.astype(float), "y": [[1], [2]]}, r"X is float64 of shape \(32, 32, 3, 2\), but images are"),
        ({"X": X[..., 0], "y": [[1]]}, r"X is uint8 of shape \(32, 32, 3\), but images are uint8"),
        ({"X": X, "y": [[1]]}, r"y does not hold 2 digits of 1 \.\. 10"),
        ({"X": X, "y": [[1], [11]]}, r"y does not hold 2 digits of 1 \.\. 10"),
        ({"X": X, "y": [[0], [1]]}, r"y does not hold 2 digits of 1 \.\. 10"),
        ({"X": X, "y": [[float("nan")], [1]]}, r"y does not hold 2 digits of 1 \.\. 10"),
        ({"X": X}, "has no array of numbers called 'y'"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, arrays: dict[str, Any], sentence: str) -> None:
    savemat(tmp_path / "a.mat", arrays)
    with pytest.raises(DataError, match=sentence) as caught:
        read_file(tmp_path / "a.mat")
    assert "\n" not in str(caught.value)


def test_a_file_with_another_checksum_is_refused(tiny: Any) -> None:
    savemat(tiny.folder / "test_32x32.mat", {"X": X, "y": [[1], [2]]})
    with pytest.raises(DataError, match=r"test_32x32\.mat has md5 .*, but .* is published .* altered"):
        load(TrainTestConfig(), DataContext(tiny.root, tiny.root.parent / "cache", offline=True))
