"""Oxford 102 Flowers: its two MATLAB files, and one sentence for each way they can be wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import Flowers102Config
from peftx_vision.data.flowers102 import load


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("imagelabels.mat", {"labels": np.array([[1, 103]])}, r"imagelabels\.mat has no classes 1 \.\. 102"),
        ("imagelabels.mat", {"labels": np.array([[0, 1]])}, r"imagelabels\.mat has no classes 1 \.\. 102"),
        ("imagelabels.mat", {"labels": np.zeros((1, 0))}, r"imagelabels\.mat has no classes 1 \.\. 102"),
        ("imagelabels.mat", {"other": np.array([[1]])}, "has no array of numbers called 'labels'"),
        ("setid.mat", {"tstid": np.array([[511]])}, "setid.mat: tstid names image 511, but there are 510"),
        ("setid.mat", {"valid": np.array([[0]])}, "setid.mat: valid names image 0, but there are 510"),
        ("setid.mat", {"trnid": np.zeros((1, 0))}, "setid.mat: trnid names no image"),
        ("setid.mat", {"trnid": "words"}, "has no array of numbers called 'trnid'"),
        (
            "setid.mat",
            {"tstid": np.array([[1]])},
            r"setid\.mat lists image_00001\.jpg, which setid\.mat lists too",
        ),
    ],
)
def test_a_file_that_is_wrong(tiny: Any, file: str, change: dict[str, Any], sentence: str) -> None:
    whole = {"trnid": np.array([[1]]), "valid": np.array([[300]]), "tstid": np.array([[400]])}
    savemat(tiny.folder / file, (whole | change) if file == "setid.mat" else change)
    tiny.expect(tiny.folder)
    with pytest.raises(DataError, match=sentence) as caught:
        load(Flowers102Config(), DataContext(tiny.root, tiny.root.parent / "cache", offline=True))
    assert "\n" not in str(caught.value)
