"""Whatever path a forward takes, it sees the adapter: every site of it, in every mode."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx


@pytest.mark.parametrize("law", ["effect", "every_site"])
def test_an_adapter_shows_in_every_mode_and_at_every_site(
    case: Any, method: str, law: str, keeps: Callable[..., None]
) -> None:
    keeps(law, method, case)


def test_inert_sites_are_inert(case: Any, method: str, perturb: Callable[..., None]) -> None:
    model, inputs = case.build(), case.samples()
    adapted = case.attach(model, method)
    tensors = adapted.tensors()
    with torch.no_grad():
        before = case.call(model, *inputs)
        for (site, _), value in tensors.items():
            if re.fullmatch(case.inert, site):
                kept = value.clone()
                perturb([value])
                change = (case.call(model, *inputs) - before).abs().max().item()
                assert change < 1e-5, f"{site} was thought to be inert"
                value.copy_(kept)
        assert torch.equal(case.call(model, *inputs), before)


class Unused(nn.Module):
    """A layer, and a parameter, that no forward touches."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)
        self.token, self.spare = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x) + self.token


def test_sites_that_no_forward_visits_are_named() -> None:
    model = Unused()
    adapted = peftx.attach(model, "core.full")
    unreached = adapted.reached(lambda: model(torch.ones(2, 3)))
    assert unreached == ("spare", "unused.bias", "unused.weight")
    lora = adapted.attach("core.lora", name="lora", targets=["used", "unused"], also_train=[])
    assert lora.reached(lambda: model(torch.ones(2, 3))) == ("unused",)
    assert lora.reached(lambda: model.unused(torch.ones(2, 3))) == ("used",)


def test_an_error_inside_a_forward_leaves_no_trace_behind() -> None:
    model = Unused()
    adapted = peftx.attach(model, "core.full")
    with pytest.raises(RuntimeError):
        adapted.reached(lambda: model(torch.ones(2, 4)))
    assert adapted._board.trace is None
