"""Side information of a forward: it reaches the deltas, ends with its block, is split with the batch, and is
remembered by activation checkpointing. And updates that depend on the input, which have no weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import peftx
from peftx.adapters import AdapterMethod, Base, Delta, Site
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError, ConfigError


class ExpertConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:*"])
    also_train: list[str] = Field(default=[])
    experts: int = 3


class Experts(Delta):
    """y = f(x) + (1 + e_u) v, with the expert u of each sample from the context; without one, u = 0."""

    routed = True

    def __init__(self, site: Site, config: ExpertConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.e = nn.Parameter(torch.randn(config.experts, site.shape[0], dtype=site.dtype))

    def forward(self, x: Tensor, base: Base) -> Tensor:
        user = self.context("user", torch.zeros(x.shape[0], dtype=torch.int64))
        return base(x) + self.e[user] * self.context("strength", 1.0)

    @staticmethod
    def param_count(site: Site, config: ExpertConfig) -> int:
        return config.experts * site.shape[0]


class ByUser(AdapterMethod):
    Config = ExpertConfig
    Delta = Experts
    kinds = ("linear", "packed_attention")
    starts_as = "shifted"


def _adapted() -> peftx.Adapted:
    torch.manual_seed(0)
    return peftx.attach(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), ByUser)


def test_it_reaches_the_deltas_and_ends_with_its_block() -> None:
    adapted, x = _adapted(), torch.randn(3, 4)
    plain = adapted.model(x)
    users = torch.tensor([0, 1, 2])
    with adapted.context(user=users):
        there = adapted.model(x)
        with adapted.context(strength=0.0):
            off = adapted.model(x)
        assert torch.equal(adapted.model(x), there)
    assert torch.equal(adapted.model(x), plain)
    assert torch.equal(there[0], plain[0]) and not torch.allclose(there[1:], plain[1:])
    with adapted.disabled():
        torch.testing.assert_close(off, adapted.model(x))


def test_it_ends_also_when_something_is_raised_or_activated_inside() -> None:
    adapted, x = _adapted(), torch.randn(3, 4)
    adapted.attach("core.lora", name="plain", targets=["0"], rank=1, also_train=[])
    adapted.activate("default")
    y = adapted.model(x)
    with pytest.raises(KeyError), adapted.context(strength=0.0):
        raise KeyError
    assert torch.equal(adapted.model(x), y)
    with adapted.context(strength=0.0):
        adapted.activate("plain", "default")
        with adapted.disabled():
            off = adapted.model(x)
        torch.testing.assert_close(adapted.model(x), off)
    assert adapted.active == ("plain", "default")
    torch.testing.assert_close(adapted.model(x), y)  # a fresh LoRA adds nothing


def test_missing_context_is_one_sentence() -> None:
    class Strict(Experts):
        def forward(self, x: Tensor, base: Base) -> Tensor:
            return base(x) + self.e[self.context("user")]

    class Needy(ByUser):
        Delta = Strict

    adapted = peftx.attach(nn.Sequential(nn.Linear(4, 3)), Needy)
    with pytest.raises(AdapterError, match=r"with adapted.context\(user=\.\.\.\)"):
        adapted.model(torch.randn(2, 4))


def test_it_is_split_with_the_batch() -> None:
    adapted, x = _adapted(), torch.randn(4, 4)
    adapted.attach(ByUser, name="b")
    users = torch.tensor([2, 1, 0, 1])
    alone = {}
    for name in ("default", "b"):
        adapted.activate(name)
        with adapted.context(user=users):
            alone[name] = adapted.model(x)
    with adapted.context(user=users), adapted.per_sample(["b", "default", "b", None]):
        mixed = adapted.model(x)
    with adapted.per_sample(["b", "default", "b", None]), adapted.context(user=users):
        nested = adapted.model(x)
    with adapted.disabled():
        base = adapted.model(x)
    expected = torch.stack([alone["b"][0], alone["default"][1], alone["b"][2], base[3]])
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(nested, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_computes_again_under_the_same_context(reentrant: bool) -> None:
    adapted, x = _adapted(), torch.randn(3, 4, requires_grad=True)
    users = torch.tensor([2, 0, 1])

    def gradient(checkpointed: bool) -> Tensor:
        for parameter in adapted.parameters():
            parameter.grad = None
        with adapted.context(user=users):
            if checkpointed:
                y = checkpoint(adapted.model, x, use_reentrant=reentrant)
            else:
                y = adapted.model(x)
        y.square().sum().backward()  # outside the block
        return torch.cat([p.grad.flatten() for p in adapted.parameters() if p.grad is not None])

    plain = gradient(False)
    adapted._board.forget_pending()
    torch.testing.assert_close(gradient(True), plain)


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_context_of_the_backward_is_not_the_one_computed_with(reentrant: bool) -> None:
    adapted, x = _adapted(), torch.randn(3, 4, requires_grad=True)

    def gradient(checkpointed: bool) -> Tensor:
        for parameter in adapted.parameters():
            parameter.grad = None
        with adapted.context(strength=2.0):
            y = checkpoint(adapted.model, x, use_reentrant=reentrant) if checkpointed else adapted.model(x)
        with adapted.context(strength=5.0):
            y.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in adapted.parameters() if p.grad is not None])

    plain = gradient(False)
    adapted._board.forget_pending()
    torch.testing.assert_close(gradient(True), plain)


def test_there_is_no_weight_to_read() -> None:
    adapted = _adapted()
    layer: Any = adapted.model[0]  # type: ignore[index]
    assert layer.weight.shape == (3, 4) and layer.weight.dtype == torch.float32
    with pytest.raises(AdapterError, match="depends on the input"):
        _ = layer.weight + 1
    delta = layer.peftx["default"]["weight"]
    assert not delta.merges
    with pytest.raises(AdapterError, match="no weight it makes"):
        delta.effective(layer._parameters["weight"], None)


def test_other_adapters_go_on_top_as_far_as_they_need_no_weight() -> None:
    adapted, x = _adapted(), torch.randn(3, 4)
    y = adapted.model(x)
    adapted.attach("core.lora", name="lora", targets=["0"], rank=1, also_train=[])
    adapted.attach("core.dora", name="dora", targets=["0"], rank=1, also_train=[])
    adapted.activate("default", "lora")
    torch.testing.assert_close(adapted.model(x), y)
    adapted.activate("default", "dora")
    with pytest.raises(AdapterError, match="depends on the input"):
        adapted.model(x)


def test_places_that_are_never_called_are_refused() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    with pytest.raises(ConfigError, match="read without being called"):
        peftx.attach(model, ByUser, targets=["attention"])
    assert not any("peftx" in key for key in model.state_dict())


def test_default_targets_leave_them_out() -> None:
    class Default(ByUser):
        class Config(ExpertConfig):
            targets: list[str] = Field(default=["attention", "mlp"])

    model = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    adapted = peftx.attach(model, Default)
    assert adapted.attachment().plan.keys == ("linear1", "linear2")
    x = torch.randn(2, 3, 8)
    with torch.no_grad(), adapted.context(user=torch.zeros(2, 1, dtype=torch.int64)):
        assert adapted.reached(lambda: model(x)) == ()


def test_a_routed_layer_behind_the_first_of_a_padded_stack() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    adapted = peftx.attach(model, ByUser, targets=["layers.1.linear1"])
    x, padded = torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)
    padded[0, 3:] = True
    with adapted.context(user=torch.tensor([[1], [2]])):
        y = model(x, src_key_padding_mask=padded)
        with torch.no_grad():
            torch.testing.assert_close(model(x, src_key_padding_mask=padded)[~padded], y[~padded])


def test_one_compilation_for_all_contexts() -> None:
    adapted, x = _adapted(), torch.randn(3, 4)
    compiled = torch.compile(adapted.model, backend="aot_eager", fullgraph=True)
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = torch.compile(adapted.model, backend=counter, fullgraph=True)
    for seed in range(4):
        users = torch.randint(0, 3, (3,), generator=torch.Generator().manual_seed(seed))
        with adapted.context(user=users):
            torch.testing.assert_close(compiled(x), adapted.model(x))
    assert counter.frame_count <= 2


@pytest.mark.parametrize(
    ("batch_dim", "shape", "expected"),
    [
        (0, (3, 8), (3, 2)),
        (0, (3, 5, 8), (3, 1, 2)),
        (1, (5, 3, 8), (1, 3, 2)),
        (0, (12, 5, 8), (12, 1, 2)),  # four windows a sample
        (0, (3, 5, 6, 8), (3, 1, 1, 2)),
    ],
)
def test_a_row_a_sample_is_spread_over_the_rows_of_an_input(
    batch_dim: int, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    site = Site("a", "a", "linear", "other", (8, 8), torch.float32, "weight", batch_dim=batch_dim)
    value, x = torch.randn(3, 2), torch.zeros(shape)
    spread = Delta(site).per_sample(value, x)
    assert spread.shape == expected
    assert (spread[..., :1] + x).shape == shape
    rows = spread.reshape(-1, 2)
    assert torch.equal(rows, value.repeat_interleave(len(rows) // 3, 0))
    assert Delta(site).per_sample(value[:, 0], x).shape == expected[:-1]


@pytest.mark.parametrize("shape", [(4, 8), (4, 5, 8), (8,), (0, 8)])
def test_rows_that_belong_to_no_sample_are_refused(shape: tuple[int, ...]) -> None:
    site = Site("trunk.0", "trunk.0", "linear", "other", (8, 8), torch.float32, "weight")
    with pytest.raises(AdapterError, match=r"trunk\.0 .* 3 samples"):
        Delta(site).per_sample(torch.randn(3), torch.zeros(shape))
