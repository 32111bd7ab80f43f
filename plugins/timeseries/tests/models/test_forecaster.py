"""The forecaster around a trunk, and the linear forecast in closed form, against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from peftx.errors import ConfigError, DataError, ModelError
from peftx_timeseries.models.forecaster import Forecaster, normalise, patches_of
from peftx_timeseries.models.hosts import Trunk, load_trunk, random_trunk
from peftx_timeseries.models.linear import least_squares
from peftx_timeseries.models.names import known
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.series.windows import Windows


class Echo(nn.Module):
    """A trunk that returns what it is given."""

    width = 3

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


@pytest.mark.parametrize(
    ("length", "patch", "stride", "count"),
    [(336, 16, 8, 42), (512, 16, 8, 64), (512, 16, 16, 33), (20, 16, 8, 2), (6, 1, 1, 7)],
)
def test_as_many_patches_as_the_formula_says(length: int, patch: int, stride: int, count: int) -> None:
    assert patches_of(length, patch, stride) == count
    model = Forecaster(Echo(), length=length, horizon=4, patch=patch, stride=stride)  # type: ignore[arg-type]
    assert model(torch.randn(2, length)).shape == (2, 4) and model.patches == count
    with pytest.raises(ConfigError, match="an input of 15 rows is shorter than a patch of 16"):
        patches_of(15, 16, 8)


def test_it_computes_what_its_equations_say() -> None:
    torch.manual_seed(0)
    model = Forecaster(Echo(), length=20, horizon=4, patch=6, stride=5).double()  # type: ignore[arg-type]
    x = torch.randn(3, 20).double().cumsum(1)
    mean, std = x.numpy().mean(1, keepdims=True), np.sqrt(x.numpy().var(1, keepdims=True) + 1e-5)
    z = (x.numpy() - mean) / std
    z = np.concatenate([z, np.repeat(z[:, -1:], 5, 1)], 1)
    patches = np.stack([z[:, at : at + 6] for at in range(0, 20, 5)], 1)
    assert patches.shape[1] == model.patches
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    h = patches @ w["in_layer.weight"].T + w["in_layer.bias"]
    y = (h.reshape(3, -1) @ w["out_layer.weight"].T + w["out_layer.bias"]) * std + mean
    np.testing.assert_allclose(model(x).detach().numpy(), y, rtol=1e-10)


def test_missing_values_do_not_count_in_the_normalisation() -> None:
    x, seen = torch.randn(4, 30).double(), torch.ones(4, 30).double()
    seen[:, ::3] = 0
    z, mean, std = normalise(x, seen)
    for row in range(4):
        own = x[row][seen[row] > 0]
        assert float(mean[row]) == pytest.approx(float(own.mean()))
        assert float(std[row]) == pytest.approx(float((own.var(unbiased=False) + 1e-5).sqrt()))
    assert (z[seen == 0] == 0).all()
    whole = normalise(x)
    torch.testing.assert_close(normalise(x, torch.ones_like(seen)), whole)


def test_a_constant_window_stays_finite() -> None:
    model = Forecaster(Echo(), length=20, horizon=4, patch=6, stride=5)  # type: ignore[arg-type]
    y = model(torch.full((2, 20), 7.0))
    assert torch.isfinite(y).all() and (y - 7).abs().max() < 0.1
    nothing = model(torch.zeros(2, 20), torch.zeros(2, 20))
    assert torch.isfinite(nothing).all()


def test_the_projections_follow_from_their_seed_alone() -> None:
    def made(seed: int, state: int) -> Any:
        torch.manual_seed(state)
        return Forecaster(Echo(), length=20, horizon=4, seed=seed).state_dict()  # type: ignore[arg-type]

    assert all(torch.equal(a, b) for a, b in zip(made(3, 0).values(), made(3, 1).values(), strict=True))
    assert not torch.equal(made(3, 0)["in_layer.weight"], made(4, 0)["in_layer.weight"])
    assert float(made(3, 0)["in_layer.weight"].abs().max()) <= 1 / 4


def test_hosts_keep_their_first_blocks_and_lose_their_tokens(tmp_path: Any) -> None:
    from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

    torch.manual_seed(0)
    BertModel(
        BertConfig(
            hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, vocab_size=11
        )
    ).save_pretrained(tmp_path / "bert")
    GPT2Model(GPT2Config(n_embd=24, n_layer=8, n_head=2, vocab_size=11)).save_pretrained(tmp_path / "gpt2")
    for name, blocks, count in (("bert", 3, 3), ("bert", None, 4), ("gpt2", None, 6), ("gpt2", 8, 8)):
        trunk = load_trunk(str(tmp_path / name), blocks=blocks, offline=True)
        held = trunk.model.encoder.layer if name == "bert" else trunk.model.h
        assert len(held) == count and trunk.width == 24
        assert not any(p.shape[0] == 11 for p in trunk.parameters())
        assert trunk(torch.randn(2, 5, 24)).shape == (2, 5, 24)
    first = load_trunk(str(tmp_path / "bert"), offline=True).state_dict()
    other = load_trunk(str(tmp_path / "bert"), offline=True, pretrained=False).state_dict()
    key = "model.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(first[key], load_trunk(str(tmp_path / "bert"), offline=True).state_dict()[key])
    assert not torch.equal(first[key], other[key])
    with pytest.raises(ModelError, match=r"has 4 blocks, and 9 were asked for with --model.blocks"):
        load_trunk(str(tmp_path / "bert"), blocks=9, offline=True)
    with pytest.raises(
        ModelError, match=r"^nobody/nothing cannot be loaded .*give a folder with config.json"
    ):
        load_trunk("nobody/nothing", offline=True)


def test_which_free_names_are_hosts(tmp_path: Any) -> None:
    assert known("gpt2") and known("google-bert/bert-base-uncased") and not known("waves")
    with pytest.raises(ModelError, match=r"has no config.json"):
        known(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert known(str(tmp_path))


def test_the_random_host_is_the_same_for_the_same_seed() -> None:
    def made(seed: int) -> Trunk:
        torch.manual_seed(seed)
        return random_trunk(16, 2, 2)

    pairs = list(zip(made(1).parameters(), made(1).parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(made(1).parameters(), made(2).parameters(), strict=True))


def walk(rows: int, channels: int, missing: bool = False) -> Windows:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(rows, channels)).cumsum(0)
    if missing:
        values[rows // 2, 0] = np.nan
    split = SeriesSplit([Series("walk", values, tuple(map(str, range(channels))))])
    return Windows(split, 12, 3, Scaler.fit(split).rows_for)


@pytest.mark.parametrize("ridge", [0.0, 10.0])
@pytest.mark.parametrize("missing", [False, True])
def test_the_linear_forecast_is_the_solution_of_the_least_squares_problem(
    ridge: float, missing: bool
) -> None:
    windows = walk(300, 2, missing)
    weight, bias = least_squares(windows, ridge)
    x, y = windows.cut(np.arange(len(windows)))
    whole = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    assert whole.all() != missing
    x, y = x[whole].astype(np.float64), y[whole].astype(np.float64)
    rows = np.concatenate([x[:, :-1] - x[:, -1:], np.ones((len(x), 1))], 1)
    penalty = np.diag([ridge**0.5] * 11 + [0.0])
    expected = np.linalg.lstsq(
        np.concatenate([rows, penalty]), np.concatenate([y - x[:, -1:], np.zeros((12, 3))]), rcond=None
    )[0]
    np.testing.assert_allclose(np.concatenate([weight.T, bias[None]]), expected, rtol=1e-6, atol=1e-9)


def test_too_few_windows_for_a_linear_forecast_are_told() -> None:
    with pytest.raises(
        DataError, match="6 whole training windows are too few for a linear forecast from 12 rows"
    ):
        least_squares(walk(20, 1))
    assert least_squares(walk(20, 1), ridge=1.0)[0].shape == (3, 11)
