"""Food-101: one sentence for each way its lists can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import TrainTestConfig
from peftx_vision.data.food101 import locate
from peftx_vision.data.released_classes import FOOD101


def test_the_classes() -> None:
    assert len(FOOD101) == 101 and list(FOOD101) == sorted(FOOD101)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"test\.json is not JSON"),
        ("[]", "expected an object of classes and lists of images"),
        ('{"sushi": "sushi/1"}', "expected an object of classes and lists of images"),
        ('{"soup": ["soup/1"]}', "'soup' is no class of Food-101"),
        ('{"sushi": [1]}', "'1' of sushi is no path"),
        ('{"sushi": ["../1"]}', r"the path '../1\.jpg' leads outside"),
        ('{"sushi": []}', r"test\.json lists no image"),
        ('{"sushi": ["sushi/train0"]}', r"test\.json lists sushi/train0\.jpg, which train\.json lists too"),
    ],
)
def test_a_list_that_is_wrong(tiny: Any, text: str, sentence: str) -> None:
    (tiny.folder / "meta" / "test.json").write_text(text)
    with pytest.raises(DataError, match=sentence) as caught:
        locate(TrainTestConfig(), DataContext(tiny.root, tiny.root.parent / "cache", offline=True))
    assert "\n" not in str(caught.value)
