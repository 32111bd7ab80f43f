"""Whatever path a forward takes, it sees the adapter: every site of it, in every mode."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import peftx

MODES = {"grad": nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def _outputs(case: Any, model: nn.Module, inputs: Any, train: bool) -> dict[str, torch.Tensor]:
    found = {}
    model.train(train)
    for name, mode in MODES.items():
        torch.manual_seed(5)  # dropout
        with mode():
            found[name] = case.call(model, *inputs).clone()
    return found


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_a_perturbed_adapter_shows_in_every_mode(
    case: Any, method: str, train: bool, perturb: Callable[..., None]
) -> None:
    model, inputs = case.build(), case.samples()
    adapted = case.attach(model, method)
    before = _outputs(case, model, inputs, train)
    perturb(adapted.parameters())
    after = _outputs(case, model, inputs, train)
    for name in MODES:
        assert (after[name] - before[name]).abs().max() > 1e-3, name
        # the same function, however torch got there
        assert torch.allclose(after[name], after["grad"], atol=1e-5, rtol=1e-4), name


def test_every_site_matters(case: Any, method: str, perturb: Callable[..., None]) -> None:
    model, inputs = case.build(), case.samples()
    adapted = case.attach(model, method)
    tensors = adapted.tensors()
    with torch.no_grad():
        before = case.call(model, *inputs)
        for site in adapted.attachment().sites:
            if site.kind == "statistic":
                continue
            own = [value for (key, _), value in tensors.items() if key == site.key]
            kept = [value.clone() for value in own]
            perturb(own)
            change = (case.call(model, *inputs) - before).abs().max().item()
            if re.fullmatch(case.inert, site.key):
                assert change < 1e-5, f"{site.key} was thought to be inert"
            else:
                assert change > 1e-5, f"{site.key} has no effect"
            for value, old in zip(own, kept, strict=True):
                value.copy_(old)
        assert torch.equal(case.call(model, *inputs), before)


def test_every_site_is_reached(case: Any, method: str) -> None:
    model, inputs = case.build(), case.samples()
    adapted = case.attach(model, method)
    assert adapted.reached(lambda: case.call(model, *inputs)) == ()


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
