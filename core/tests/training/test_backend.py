"""Where and in what precision: what is refused, and what succeeds twice in one process."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftx.errors import ConfigError
from peftx.training.backend import Backend


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("gpu", "fp32", "--device gpu: expected auto, cpu, cuda"),
        ("cuda:x", "fp32", "--device cuda:x"),
        ("cpu:1", "fp32", "--device cpu:1"),
        ("cpu", "int8", "--precision int8: expected one of fp32, bf16, fp16"),
        ("cpu", "fp16", "fp16 needs a GPU"),
        ("cuda:99", "fp32", "this machine shows"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(device: str, precision: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Backend(device, precision)
    assert "\n" not in str(caught.value)


def test_precisions_may_follow_each_other_in_one_process() -> None:
    for precision in ("bf16", "fp32", "bf16"):
        backend = Backend("cpu", precision)
        with backend.autocast():
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_one_process_leaves_the_model_as_it_is() -> None:
    model = nn.Linear(2, 2)
    before = dict(vars(model))
    wrapped, _ = Backend("cpu", "bf16").prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    assert wrapped is model
    assert vars(model).keys() == before.keys()
