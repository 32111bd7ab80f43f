"""example.bottleneck: the equation, and units that are pruned for good."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import AdapterError, ConfigError

STEPS = 20


def attached(**options):
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True), 2)
    return peftx.attach(
        model, "example.bottleneck", **{"start_width": 12, "width": 3, "also_train": []} | options
    )


def inserts(adapted):
    return [layer.peftx["default"]["insert"] for layer in adapted.model.layers]


def units(insert):
    return int(insert.down.any(1).sum())


def train(adapted, steps=STEPS):
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=0.01, weight_decay=0.1)
    adapted.bind(optimizer, total_steps=STEPS)
    adapted.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        adapted.model(torch.randn(4, 5, 8)).square().mean().backward()
        optimizer.step()
        yield


def test_the_equation():
    adapted, x = attached(), torch.randn(2, 5, 8)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.normal_()
    h = x
    for layer, insert in zip(adapted.model.layers, inserts(adapted), strict=True):
        with adapted.disabled():
            h = layer(h)
        h = h + nn.functional.gelu(h @ insert.down.T) @ insert.up.T
    adapted.model.eval()
    torch.testing.assert_close(adapted.model(x), h)


def test_the_units_left_fall_by_a_cubic_law_and_stay_away():
    adapted = attached()
    left, settled = [], []
    for _ in train(adapted):
        first, second = map(units, inserts(adapted))
        assert first == second
        left.append(first)
        settled.append(adapted.settled)
    # between 20 % and 70 % of 20 steps
    wanted = [3 + round(9 * (1 - min(max((step - 4) / 10, 0), 1)) ** 3) for step in range(1, STEPS + 1)]
    assert left == wanted and wanted[3] == 12 and wanted[13] == 3
    assert settled == [count == 3 for count in left]
    for insert in inserts(adapted):
        gone = ~insert.down.any(1)
        assert not insert.up[:, gone].any(), "neither momentum nor weight decay brings a unit back"


def test_the_units_that_matter_most_are_kept():
    adapted = attached()
    first = inserts(adapted)[0]
    for step, _ in enumerate(train(adapted), 1):
        if step == 4:  # pruning begins
            with torch.no_grad():
                first.up[:, [1, 5, 11]] = 100.0
    assert first.down.any(1).nonzero().flatten().tolist() == [1, 5, 11]


def test_a_pruned_adapter_is_saved_and_read(tmp_path):
    adapted, x = attached(), torch.randn(2, 5, 8)
    for _ in train(adapted):
        pass
    adapted.model.eval()
    folder = peftx.artifacts.save(adapted, tmp_path / "adapter")
    loaded = peftx.artifacts.load(attached().detach().eval(), folder)
    assert torch.equal(loaded.model(x), adapted.model(x))
    assert [units(insert) for insert in inserts(loaded)] == [3, 3]


def test_training_needs_an_optimizer_to_drive_it():
    adapted = attached()
    adapted.model.train()
    with pytest.raises(AdapterError, match="bind"):
        adapted.model(torch.randn(2, 5, 8))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 13}, "width 13 is more than start_width 12"),
        ({"prune_from": 0.5, "prune_until": 0.4}, "prune_from 0.5 is not before prune_until 0.4"),
    ],
)
def test_options_in_the_wrong_order_are_one_sentence(options, said):
    with pytest.raises(ConfigError, match=said) as caught:
        attached(**options)
    assert len(str(caught.value).splitlines()) == 1
