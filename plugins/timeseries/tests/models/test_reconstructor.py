"""The reconstructor: shapes, segments of their own, what an adapter may train, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx.errors import ConfigError, SelectionError
from peftx_timeseries.models.hosts import Trunk, random_trunk
from peftx_timeseries.models.reconstructor import Reconstructor


def made(channels: int = 5, width: int = 16, **options: object) -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(random_trunk(width, 2, 2), channels=channels, **options).eval()  # type: ignore[arg-type]


def windows(rows: int = 3, length: int = 50, channels: int = 5) -> Tensor:
    return torch.randn(rows, length, channels, generator=torch.Generator().manual_seed(1))


class Pass(nn.Module):
    """A trunk that hands its tokens on, so that the tokens can be looked at."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


@pytest.mark.parametrize("options", [{}, {"linear": True}, {"features": 8}, {"segment": 0}, {"segment": 50}])
def test_windows_come_back_in_their_shape(options: dict[str, object]) -> None:
    assert made(**options)(windows()).shape == (3, 50, 5)


def test_segments_are_standardised_by_themselves_and_tokens_end_in_zeros() -> None:
    model = Reconstructor(Pass(8), channels=5, segment=25)  # type: ignore[arg-type]
    with torch.no_grad():
        model.out_layer.weight.copy_(torch.eye(5, 8))
        model.out_layer.bias.zero_()
    model.requires_grad_(False)
    x = windows()
    assert model(x) == pytest.approx(x, abs=1e-5)  # tokens hold the channels, and zeros behind them
    seen: list[Tensor] = []
    model.trunk.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    model(x)
    parts = seen[0].unflatten(1, (2, 25))
    assert parts[..., :5].mean(2).abs().max() < 1e-5
    assert parts[..., :5].var(2, unbiased=False) == pytest.approx(torch.ones(3, 2, 5), abs=1e-3)
    assert (parts[..., 5:] == 0).all()


def test_a_level_of_a_whole_segment_is_invisible_and_shift_and_scale_come_back() -> None:
    model, x = made(), windows()
    moved = x.clone()
    moved[:, 25:] = 3 * moved[:, 25:] + 7
    with torch.no_grad():
        error, after = model(x) - x, model(moved) - moved
    assert after[:, :25] == pytest.approx(error[:, :25], abs=1e-5)
    assert after[:, 25:] == pytest.approx(3 * error[:, 25:], abs=1e-3)
    with torch.no_grad():
        seen = made(segment=0)(moved) - moved
        was = made(segment=0)(x) - x
    assert (seen[:, 25:] - was[:, 25:]).abs().mean() > 1.0


def test_a_constant_channel_stays_finite() -> None:
    x = windows()
    x[:, :, 0] = 4.0
    assert torch.isfinite(made()(x)).all()


def test_projections_follow_from_their_own_seed() -> None:
    one, same, other = made(linear=True), made(linear=True), made(linear=True, seed=1)
    assert one.in_layer is not None and same.in_layer is not None and other.in_layer is not None
    assert torch.equal(one.in_layer.weight, same.in_layer.weight)
    assert not torch.equal(one.out_layer.weight, other.out_layer.weight)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"20 channels do not fit into tokens of width 16: .*--task\.embedding linear"
    ):
        made(channels=20)
    assert made(channels=20, linear=True)(windows(channels=20)).shape == (3, 50, 20)
    with pytest.raises(
        ConfigError, match=r"17 features were asked for with --task\.features, and the host has 16"
    ):
        made(features=17)


def test_one_for_all_adapts_the_positions_and_the_projection_or_as_its_code_the_positions_alone() -> None:
    model = made()
    adapted = peftx.attach(model, "timeseries.one_for_all", rank=4)
    rank, width, positions = 4, 16, model.trunk.model.wpe.num_embeddings
    both = rank * (positions + width) + rank * (width + 5)
    assert sum(p.numel() for p in adapted.parameters()) == both
    alone = peftx.attach(made(), "timeseries.one_for_all", rank=4, targets=["embedding.position"])
    assert sum(p.numel() for p in alone.parameters()) == rank * (positions + width)


def test_gpt4ts_trains_norms_positions_and_projections() -> None:
    model = made(linear=True)
    adapted = peftx.attach(model, "timeseries.gpt4ts")
    width, positions = 16, model.trunk.model.wpe.num_embeddings
    norms = (2 * 2 + 1) * 2 * width
    assert sum(p.numel() for p in adapted.parameters()) == norms + positions * width + (5 * width + width) + (
        width * 5 + 5
    )


def test_an_input_projection_that_is_not_there_cannot_be_trained() -> None:
    with pytest.raises(SelectionError, match="in_layer"):
        peftx.attach(made(), "timeseries.one_for_all", io="in")
    assert isinstance(made().trunk, Trunk)
