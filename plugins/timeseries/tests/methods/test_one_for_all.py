"""One-for-All and GPT4TS against their cards: counts, gradients, equivariance, files that load anywhere."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError
from peftx_timeseries.models.forecaster import Forecaster
from peftx_timeseries.models.hosts import Trunk, random_trunk

#: GPT-2 small without its table of tokens: 6 of 12 blocks, 1,024 positions, width 768.
TOKENS = 50_257 * 768


def gpt2(horizon: int, length: int = 336, stride: int = 8) -> Forecaster:
    """As large as the real one, with whatever lies in memory for weights: only shapes are looked at."""
    with torch.device("meta"):
        model = GPT2Model(GPT2Config(n_layer=6))
    model.wte = None
    found = Forecaster(Trunk(nn.Identity(), 8), length=length, horizon=1, stride=stride)
    found.trunk = Trunk(model, 768)
    found.horizon = horizon
    with torch.device("meta"):
        found.in_layer = nn.Linear(16, 768)
        found.out_layer = nn.Linear(768 * found.patches, horizon)
    return found


def small(seed: int = 0, horizon: int = 12, **options: Any) -> Forecaster:
    torch.manual_seed(0)
    trunk = random_trunk(32, 4, 2)
    return Forecaster(trunk, length=96, horizon=horizon, seed=seed, **options).eval()


def windows(rows: int = 6, length: int = 96) -> Tensor:
    return torch.randn(rows, length, generator=torch.Generator().manual_seed(1)).cumsum(1)


@pytest.mark.parametrize(
    ("horizon", "ours", "theirs"),
    [
        (96, 546_304, 3_916_128),
        (192, 547_840, 7_012_800),
        (336, 550_144, 11_657_808),
        (720, 556_288, 24_044_496),
    ],
)
def test_the_published_counts(horizon: int, ours: int, theirs: int) -> None:
    model = gpt2(horizon)
    assert model.patches == 42
    assert peftx.explain(model, "timeseries.one_for_all").counts.trainable == ours
    counts = peftx.explain(model, "timeseries.gpt4ts").counts
    assert counts.trainable == theirs
    if horizon == 336:
        # what is called 371 MiB of GPT4TS is the whole model with its unused tokens, 4 bytes a value
        assert counts.base_total + TOKENS == 92_763_984


def test_counts_of_other_ranks_and_inputs() -> None:
    horizons = (96, 192, 336, 720)

    def mean(length: int, stride: int, rank: int) -> float:
        found = [
            peftx.explain(
                gpt2(h, length, stride), "timeseries.one_for_all", rank=rank, alpha=1.0
            ).counts.trainable
            for h in horizons
        ]
        return sum(found) / 4

    assert [mean(336, 8, rank) for rank in (2, 8, 16)] == [68_768, 275_072, 550_144]
    assert [mean(512, 8, 16), mean(512, 16, 16)] == [820_480, 439_552]


def test_it_starts_as_the_frozen_model_and_is_so_again_when_it_is_off() -> None:
    model, x = small(), windows()
    with torch.no_grad():
        before = model(x)
        adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
        assert torch.equal(model(x), before)
        for tensor in adapted.tensors().values():
            tensor.add_(0.1)
        assert not torch.equal(model(x), before)
        with adapted.disabled():
            assert torch.equal(model(x), before)


def test_gradients_of_the_first_step() -> None:
    model = small()
    adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
    model(windows()).square().mean().backward()
    grads = {(site, slot): tensor.grad for (site, slot), tensor in adapted.tensors().items()}
    table = next(site for site, _ in grads if site.endswith("wpe"))
    assert set(grads) == {(table, "A"), (table, "B"), ("out_layer", "A"), ("out_layer", "B")}
    assert grads[table, "A"].abs().sum() > 0 and grads["out_layer", "B"].abs().sum() > 0
    assert grads[table, "B"].abs().sum() == 0 and grads["out_layer", "A"].abs().sum() == 0
    # positions that no patch reaches
    assert grads[table, "A"][:, model.patches :].abs().sum() == 0
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if "peftx" not in name)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("quantiles", [0, 3])
def test_a_shift_and_a_scale_of_the_input_are_those_of_the_forecast(residual: bool, quantiles: int) -> None:
    model = small(linear=residual, quantiles=quantiles).double()
    adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
    with torch.no_grad():
        for tensor in adapted.tensors().values():
            tensor.normal_(std=0.1)
        x = windows().double()
        torch.testing.assert_close(model(x - 7.0), model(x) - 7.0, rtol=1e-6, atol=1e-6)
        if residual:  # an intercept has a unit of its own, as it has in closed form
            adapted.tensors()["residual.bias", "value"].zero_()
        torch.testing.assert_close(model(3.0 * x), 3.0 * model(x), rtol=1e-4, atol=1e-4)


def test_each_channel_is_forecast_alone() -> None:
    model, x = small(), windows(8)
    order = torch.randperm(8)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[order], model(x[order]))
        torch.testing.assert_close(model(x)[:1], model(x[:1]))


def test_a_merge_is_exact() -> None:
    model, x = small().double(), windows().double()
    adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
    with torch.no_grad():
        for tensor in adapted.tensors().values():
            tensor.normal_(std=0.1)
        before = model(x)
        artifacts.merge(adapted)
        torch.testing.assert_close(model(x), before, rtol=1e-10, atol=1e-10)


LOADER = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from test_one_for_all import small, windows
from peftx import artifacts
torch.manual_seed(int(sys.argv[4]))
model = small()
artifacts.load(model, sys.argv[1])
torch.save(model.eval()(windows()).detach(), sys.argv[2])
"""


@pytest.mark.slow
def test_a_file_gives_the_same_forecasts_in_another_process_with_another_seed(tmp_path: Path) -> None:
    """The official files leave out the random projections and are worth nothing elsewhere."""
    model = small()
    adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
    with torch.no_grad():
        for tensor in adapted.tensors().values():
            tensor.normal_(std=0.1)
        artifacts.save(adapted, tmp_path / "adapter")
        expected = model(windows())
    script = [
        sys.executable,
        "-c",
        LOADER,
        tmp_path / "adapter",
        tmp_path / "y.pt",
        Path(__file__).parent,
        "99",
    ]
    subprocess.run(script, check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), expected)


def test_a_file_is_refused_on_other_projections(tmp_path: Path) -> None:
    artifacts.save(peftx.attach(small(), "timeseries.one_for_all", rank=4), tmp_path / "adapter")
    with pytest.raises(ArtifactError):
        artifacts.load(small(seed=1), tmp_path / "adapter")


def test_the_three_ways_with_the_projections() -> None:
    counts = {}
    for io in ("frozen", "in", "both"):
        adapted = peftx.attach(small(), "timeseries.one_for_all", rank=4, io=io)
        owned = {site for site, slot in adapted.tensors() if slot not in ("A", "B")}
        counts[io] = adapted.counts().trainable
        assert {name.partition(".")[0] for name in owned} == {
            "frozen": set(), "in": {"in_layer"}, "both": {"in_layer", "out_layer"}
        }[io]  # fmt: skip
    table, head = 4 * (1024 + 32), 4 * (32 * 12 + 12)
    assert counts["frozen"] == table + head
    assert counts["in"] == table + head + 16 * 32 + 32
    assert counts["both"] == table + 16 * 32 + 32 + 32 * 12 * 12 + 12


def test_the_linear_forecast_below_belongs_to_the_adapter() -> None:
    model = small(linear=True)
    with torch.no_grad():
        model.residual.weight.normal_()
    x = windows()
    line = model.residual(x[:, :-1] - x[:, -1:]) + x[:, -1:]
    torch.testing.assert_close(model(x), line)  # the trunk starts as no correction
    adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
    assert {"residual.weight", "residual.bias"} <= {site for site, _ in adapted.tensors()}


def test_gpt4ts_trains_what_its_card_says() -> None:
    model = small()
    adapted = peftx.attach(model, "timeseries.gpt4ts")
    names = {site for site, _ in adapted.tensors()}
    assert names == {
        name for name, _ in copy.deepcopy(small()).named_parameters()
        if any(part in name for part in ("ln_", "wpe", "in_layer", "out_layer"))
    }  # fmt: skip
    model(windows()).square().mean().backward()
    assert all(
        tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in adapted.tensors().values()
    )


def test_a_later_patch_does_not_change_what_a_causal_trunk_made_of_earlier_ones() -> None:
    model = small()
    tokens = torch.randn(2, 12, 32)
    other = tokens.clone()
    other[:, -1] += 1
    with torch.no_grad():
        assert torch.equal(model.trunk(tokens)[:, :-1], model.trunk(other)[:, :-1])


def test_windows_of_one_batch_are_forecast_by_adapters_of_their_own_with_tables_of_their_own() -> None:
    model, x = small(), windows(4)
    for seed, name in enumerate(("a", "b")):
        adapted = peftx.attach(model, "timeseries.one_for_all", name=name, rank=4)
        torch.manual_seed(seed)
        for parameter in adapted.parameters(name):
            parameter.data.add_(torch.randn_like(parameter) / 10)
    alone = {}
    for name in ("a", "b"):
        adapted.activate(name)
        alone[name] = model(x)
    with adapted.disabled():
        alone[None] = model(x)
    ids = ["a", None, "b", "a"]
    with adapted.per_sample(ids):
        mixed = model(x)
    wanted = torch.stack([alone[name][sample] for sample, name in enumerate(ids)])
    assert torch.allclose(mixed, wanted, atol=1e-4)
    assert not torch.allclose(alone["a"], alone["b"], atol=1e-2)
