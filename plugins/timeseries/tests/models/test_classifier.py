"""A language model as a classifier: equations, masks, counts, and what peftx finds in it."""

from __future__ import annotations

from math import erf, sqrt

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx.adapters.roles import head_of
from peftx_timeseries.models.classifier import SeriesClassifier
from peftx_timeseries.models.hosts import Trunk, random_trunk


class Same(Trunk):
    """A trunk that gives back its tokens."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        self.width, self.positions = width, 0

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return tokens


def small(trunk: Trunk | None = None) -> SeriesClassifier:
    torch.manual_seed(0)
    return SeriesClassifier(
        trunk or random_trunk(16, 2, 2), channels=3, length=20, classes=4, patch=6, stride=3
    ).eval()


def by_hand(model: SeriesClassifier, x: Tensor, seen: Tensor) -> Tensor:
    """The equations step by step, in float64, with a trunk that does nothing."""
    p, s = model.patch, model.stride
    rows = []
    for one, mask in zip(x, seen, strict=True):
        one = torch.where(mask > 0, one, 0.0)
        one, mask = torch.cat([one, one[:, -1:].repeat(1, s)], 1), torch.cat([mask, mask[-1:].repeat(s)])
        tokens = []
        for at in range(0, one.shape[1] - p + 1, s):
            patch = one[:, at : at + p]  # (M, p)
            weight = model.in_layer.weight.view(-1, *patch.shape)  # (D, M, p)
            token = torch.einsum("dmp,mp->d", weight, patch) + model.in_layer.bias
            gelu = torch.tensor([v * 0.5 * (1 + erf(v / sqrt(2))) for v in token.tolist()], dtype=x.dtype)
            tokens.append(gelu * float(mask[at : at + p].max() > 0))
        flat = torch.cat(tokens)
        normed = (flat - flat.mean()) / (flat.var(unbiased=False) + model.norm.eps).sqrt()
        normed = normed * model.norm.weight + model.norm.bias
        rows.append(torch.einsum("cf,f->c", model.out_layer.weight, normed) + model.out_layer.bias)
    return torch.stack(rows)


def test_it_is_the_equations() -> None:
    model, x = small(Same(5)).double(), torch.randn(3, 3, 20, dtype=torch.float64)
    with torch.no_grad():
        model.norm.weight.normal_()
        model.norm.bias.normal_()
        torch.testing.assert_close(model(x), by_hand(model, x, torch.ones(3, 20, dtype=torch.float64)))
        seen = (torch.arange(20) < torch.tensor([[20], [13], [2]])).double()
        torch.testing.assert_close(model(x, seen), by_hand(model, x, seen))


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_what_is_behind_the_end_of_a_sample_is_not_looked_at(kind: str) -> None:
    model = small(random_trunk(16, 2, 2) if kind == "decoder" else encoder())
    x = torch.randn(3, 3, 20)
    seen = (torch.arange(20) < torch.tensor([[20], [13], [4]])).float()
    with torch.no_grad():
        torch.testing.assert_close(model(x + 50 * (1 - seen)[:, None], seen), model(x, seen))
        # a sample that fills the input is the same with a mask and without
        torch.testing.assert_close(model(x[:1], seen[:1]), model(x[:1]))
        # what a trunk that looks both ways makes of the first token does not depend on padding
        tokens, mask = torch.randn(1, 6, 16), torch.tensor([[1.0, 1, 1, 0, 0, 0]])
        other = tokens + 10 * (1 - mask)[..., None]
        torch.testing.assert_close(model.trunk(tokens, mask)[:, :3], model.trunk(other, mask)[:, :3])


def encoder() -> Trunk:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=2, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    return Trunk(BertModel(config, add_pooling_layer=False), 16)


def test_the_size_of_a_sample_is_seen() -> None:
    """No sample is standardised by itself: twice as large is something else."""
    model, x = small(), torch.randn(2, 3, 20)
    with torch.no_grad():
        assert not torch.allclose(model(2 * x), model(x), atol=1e-3)
        assert not torch.allclose(model(x + 1), model(x), atol=1e-3)


def test_counts_and_projections() -> None:
    model = small()
    patches = (20 - 6) // 3 + 2
    assert model.patches == patches == 6
    new = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("trunk."))
    assert new == (3 * 6 + 1) * 16 + 2 * 16 * patches + (16 * patches + 1) * 4
    torch.manual_seed(99)
    other = SeriesClassifier(random_trunk(16, 2, 2), channels=3, length=20, classes=4, patch=6, stride=3)
    # from a seed of their own, whatever the run's
    assert torch.equal(other.in_layer.weight, model.in_layer.weight)
    assert torch.equal(other.out_layer.weight, model.out_layer.weight)


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("core.head", {"in_layer", "norm", "out_layer"}),
        ("timeseries.gpt4ts", {"in_layer", "norm", "out_layer", "trunk"}),
        ("timeseries.one_for_all", {"out_layer", "trunk"}),
        ("core.lora", {"in_layer", "norm", "out_layer", "trunk"}),
        ("core.full", {"in_layer", "norm", "out_layer", "trunk"}),
    ],
)
def test_methods_find_their_places(method: str, trained: set[str]) -> None:
    model = small()
    assert head_of(model) == ("in_layer", "norm", "out_layer")
    before = model(torch.ones(2, 3, 20))
    adapted = peftx.attach(model, method)
    assert {site.partition(".")[0] for site, _ in adapted.tensors()} == trained
    torch.testing.assert_close(model(torch.ones(2, 3, 20)), before)
