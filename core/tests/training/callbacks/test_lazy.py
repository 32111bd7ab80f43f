"""The libraries of other trainers load when a callback is asked for, and their absence is one sentence."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import peftx.training.callbacks as callbacks
from peftx.errors import UserError


def test_nothing_loads_before_a_callback_is_asked_for() -> None:
    code = (
        "import sys, peftx.training, peftx.training.callbacks\n"
        "loaded = {'torch', 'transformers', 'lightning', 'pytorch_lightning', 'accelerate'} & set(sys.modules)\n"
        "print(sorted(loaded))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "library"), [("TransformersCallback", "transformers"), ("LightningCallback", "lightning")]
)
def test_a_missing_library_is_one_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{name} needs {library}.*: pip install {library}$") as caught:
        getattr(callbacks, name)
    assert "\n" not in str(caught.value)


def test_every_name_is_offered_and_no_other() -> None:
    assert set(callbacks.__all__) == set(callbacks._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'KerasCallback'"):
        _ = callbacks.KerasCallback
