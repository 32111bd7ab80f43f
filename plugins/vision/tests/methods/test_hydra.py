from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ConfigError, SelectionError
from peftx_vision.methods.hydra import HydraDelta


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Plain(nn.Module):
    """A frozen layer and its two branches, written down as the paper has them, sharing no code with the method."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        out, width = layer.weight.shape
        self.layer, self.scale = layer.requires_grad_(False), scale
        self.down_p, self.up_p = nn.Linear(width, rank), nn.Linear(rank, out)
        self.down_s, self.up_s = nn.Linear(out, rank), nn.Linear(rank, out)

    def forward(self, x: Tensor) -> Tensor:
        f = self.layer(x)
        beside: Tensor = self.scale * self.up_p(self.down_p(x))
        behind: Tensor = self.scale * self.up_s(self.down_s(f))
        return f + beside + behind  # type: ignore[no-any-return]

    def take(self, delta: HydraDelta) -> None:
        """Have the values of a delta."""
        with torch.no_grad():
            for own, name in self.pairs(delta):
                own.copy_(name)

    def pairs(self, delta: HydraDelta) -> list[tuple[Tensor, Tensor]]:
        """(own parameter, the delta's)."""
        found = []
        for branch in ("p", "s"):
            for layer, weight, bias in (("down", "A", "a"), ("up", "B", "c")):
                linear = getattr(self, f"{layer}_{branch}")
                found.append((linear.weight, getattr(delta, f"{weight}_{branch}")))
                found.append((linear.bias, getattr(delta, f"{bias}_{branch}")))
        return found


def on(layer: nn.Module, spread: float = 0.5, **options: Any) -> tuple[nn.Module, HydraDelta]:
    """A layer with branches none of whose values is zero."""
    model = nn.Sequential(layer)
    adapted = peftx.attach(model, "vision.hydra", targets=["0"], also_train=[], **options)
    (delta,) = deltas(adapted)
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model, delta


def deltas(adapted: Any) -> list[HydraDelta]:
    return [m for m in adapted.model.modules() if isinstance(m, HydraDelta)]


def small(name: str = "vit") -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    if name == "vit":
        options = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 8}
        return timm.models.VisionTransformer(**options, num_classes=3).eval()  # type: ignore[no-any-return]
    shape = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (2, 1)}
    return timm.models.SwinTransformer(**shape, num_heads=(1, 2), num_classes=3).eval()  # type: ignore[no-any-return]


def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("rank", "count"), [(2, 239_712), (8, 848_256)])
def test_count_on_vit_b(rank: int, count: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    adapted = peftx.attach(model, "vision.hydra", rank=rank)
    k, d = rank, 768
    assert adapted.counts().adapter == 12 * (3 * (2 * d * k + k + d) + 5 * d * k + k + d) == count
    assert sum(p.numel() for delta in deltas(adapted) for p in delta.parameters()) == count
    names = ("attn.proj", "mlp.fc2")
    assert {d.site.key for d in deltas(adapted)} == {
        f"blocks.{i}.{name}" for i in range(12) for name in names
    }


def test_swin_has_the_same_places_and_convnext_only_its_feed_forward_networks() -> None:
    timm = pytest.importorskip("timm")
    keys = [d.site.key for d in deltas(peftx.attach(small("swin"), "vision.hydra"))]
    assert len(keys) == 2 * 3 and all(key.endswith(("attn.proj", "mlp.fc2")) for key in keys)
    shape = {"depths": (1, 1, 1, 1), "dims": (4, 4, 6, 6), "num_classes": 3}
    keys = [d.site.key for d in deltas(peftx.attach(timm.models.ConvNeXt(**shape), "vision.hydra"))]
    assert keys == [f"stages.{i}.blocks.0.mlp.fc2" for i in range(4)]
    with pytest.raises(SelectionError, match="matches only sites of kind conv2d"):
        peftx.attach(timm.models.ConvNeXt(**shape), "vision.hydra", targets=["conv"])


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.5])
@pytest.mark.parametrize(
    ("rows", "width", "out", "rank"), [(1, 7, 5, 1), (63, 24, 33, 2), (257, 40, 24, 16), (0, 8, 8, 2)]
)
def test_values_and_gradients_are_those_of_the_written_form(
    rows: int, width: int, out: int, rank: int, scale: float
) -> None:
    layer = nn.Linear(width, out).double()
    plain = Plain(nn.Linear(width, out).double(), rank, scale).double()
    plain.layer.load_state_dict(layer.state_dict())
    model, delta = on(layer, rank=rank, scale=scale)
    plain.take(delta)
    x = torch.randn(width, rows, dtype=torch.float64).t().requires_grad_()
    leaf = x.detach().clone().requires_grad_()
    y, want = model(x), plain(leaf)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-10)
    weight = torch.randn_like(want)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    torch.testing.assert_close(x.grad, leaf.grad, rtol=1e-10, atol=1e-10)
    for own, other in plain.pairs(delta):
        torch.testing.assert_close(other.grad, own.grad, rtol=1e-10, atol=1e-9)
    assert delta.site.shape == (out, width)
    assert all(parameter is not None and parameter.grad is None for parameter in layer._parameters.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    layer = nn.Linear(48, 32).to(dtype)
    plain = Plain(nn.Linear(48, 32), 4, 1.5)
    plain.layer.load_state_dict({key: value.float() for key, value in layer.state_dict().items()})
    model, delta = on(layer, rank=4, scale=1.5, spread=0.2)
    plain.take(delta)
    x = torch.randn(9, 48).to(dtype)
    y, want = model(x), plain(x.float())
    assert y.dtype == dtype and delta.A_p.dtype == torch.float32
    torch.testing.assert_close(y.float(), want, rtol=0, atol=0.02 * float(want.detach().abs().max()))
    (y.float() ** 2).sum().backward()
    (want**2).sum().backward()
    for own, other in plain.pairs(delta):
        assert own.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad, own.grad, rtol=0, atol=0.05 * float(own.grad.abs().max()))


def test_it_starts_at_the_base_and_the_second_maps_learn_first() -> None:
    model, x = small(), images()
    before = model(x)
    adapted = peftx.attach(model, "vision.hydra", scale=4.5)
    assert torch.equal(adapted.model(x), before)
    adapted.model(x).square().sum().backward()
    for delta in deltas(adapted):
        for name, parameter in delta.named_parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.any()) is (name[0] in "Bc"), f"{name} at {delta.site.key}"


def test_how_the_first_maps_start() -> None:
    layer = nn.Linear(768, 3072)
    for init, expected in (
        ("xavier", [(2 / (2 + 768)) ** 0.5, (2 / (2 + 3072)) ** 0.5]),
        ("normal", [0.02, 0.02]),
    ):
        _, delta = on(nn.Linear(768, 3072), spread=0.0, init=init)
        for first, std in zip((delta.A_p, delta.A_s), expected, strict=True):
            assert float(first.detach().std()) == pytest.approx(std, rel=0.05)
        zero = [delta.B_p, delta.B_s, delta.a_p, delta.a_s, delta.c_p, delta.c_s]
        assert not any(tensor is None or tensor.any() for tensor in zero)
    bound = (6 / (2 + 768)) ** 0.5
    _, delta = on(layer, spread=0.0)
    assert 0.98 * bound < float(delta.A_p.detach().abs().max()) <= bound


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.5])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_merged_is_unmerged(name: str, scale: float) -> None:
    model, x = small(name), images()
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    adapted = peftx.attach(model, "vision.hydra", scale=scale)
    with torch.no_grad():
        before = adapted.model(x)
        for delta in deltas(adapted):
            for parameter in delta.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        y = adapted.model(x)
        assert (y - before).abs().max() > 1e-2
        artifacts.merge(adapted, probe=x)
        assert {key: value.shape for key, value in model.state_dict().items()} == shapes
        assert (model(x) - y).abs().max() <= 1e-5 * max(1.0, float(y.abs().max()))


def test_two_by_two() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        layer.bias.copy_(torch.tensor([1.0, 1.0]))
    model, delta = on(layer, spread=0.0, rank=1, scale=1.0)
    with torch.no_grad():
        delta.A_p.copy_(torch.tensor([[0.0, 1.0]]))
        delta.B_p.copy_(torch.tensor([[1.0], [0.0]]))  # B_p A_p = [[0, 1], [0, 0]]
        delta.A_s.copy_(torch.tensor([[1.0, 0.0]]))
        delta.B_s.copy_(torch.tensor([[0.0], [1.0]]))  # B_s A_s = [[0, 0], [1, 0]]
    adapted = model[0]  # type: ignore[index]
    assert adapted.weight.tolist() == [[1.0, 1.0], [1.0, 2.0]] and adapted.bias.tolist() == [1.0, 2.0]
    assert torch.equal(model(torch.zeros(1, 2)), torch.tensor([[1.0, 2.0]]))
    assert torch.equal(model(torch.eye(2)), torch.tensor([[2.0, 3.0], [2.0, 4.0]]))


def test_of_zeros_comes_the_bias() -> None:
    model, _ = on(nn.Linear(6, 5), scale=2.0)
    torch.testing.assert_close(model(torch.zeros(3, 6)), model[0].bias.expand(3, 5))  # type: ignore[index]


def test_one_branch_is_lora_and_the_other_a_linear_adapter() -> None:
    x = torch.randn(7, 6)
    layer = nn.Linear(6, 5)
    y = layer(x).detach()
    model, delta = on(layer, rank=3, scale=0.5)
    assert delta.c_p is not None and delta.c_s is not None and delta.a_p is not None and delta.a_s is not None
    with torch.no_grad():
        kept = [delta.B_s.clone(), delta.c_s.clone()]
        delta.B_s.zero_(), delta.c_s.zero_()
        lora = y + 0.5 * ((x @ delta.A_p.t() + delta.a_p) @ delta.B_p.t() + delta.c_p)
        torch.testing.assert_close(model(x), lora)
        delta.B_s.copy_(kept[0]), delta.c_s.copy_(kept[1])
        delta.B_p.zero_(), delta.c_p.zero_()
        behind = y + 0.5 * ((y @ delta.A_s.t() + delta.a_s) @ delta.B_s.t() + delta.c_s)
        torch.testing.assert_close(model(x), behind)


def test_dropout_is_between_the_maps() -> None:
    """One hidden unit a branch: a row loses a branch whole, up to its last bias, or has it at twice the size."""
    layer = nn.Linear(6, 5)
    x = torch.randn(400, 6)
    y = layer(x).detach()
    model, delta = on(layer, rank=1, scale=0.5, dropout=0.5)
    assert delta.c_p is not None and delta.c_s is not None and delta.a_p is not None and delta.a_s is not None
    with torch.no_grad():
        beside = 0.5 * (x @ delta.A_p.t() + delta.a_p) @ delta.B_p.t()
        behind = 0.5 * (y @ delta.A_s.t() + delta.a_s) @ delta.B_s.t()
        rest = y + 0.5 * (delta.c_p + delta.c_s)
        got = model.train()(x)
        forms = [rest + a * beside + b * behind for a in (0, 2) for b in (0, 2)]
        hits = torch.stack([torch.isclose(got, form, atol=1e-5).all(1) for form in forms])
        assert hits.any(0).all() and all(0.15 < float(hit.float().mean()) < 0.35 for hit in hits)
        torch.testing.assert_close(model.eval()(x), rest + beside + behind)


def test_a_layer_without_a_bias_has_branches_without() -> None:
    layer = nn.Linear(6, 5, bias=False)
    x = torch.randn(4, 6)
    y = layer(x).detach()
    model, delta = on(layer, rank=2)
    assert len(list(delta.parameters())) == 4
    w_p, w_s = delta.B_p @ delta.A_p, delta.B_s @ delta.A_s
    torch.testing.assert_close(model(x), y + x @ w_p.t() + y @ w_s.t())
    weight = layer._parameters["weight"]
    assert weight is not None
    torch.testing.assert_close(model[0].weight, weight + w_s @ weight + w_p)  # type: ignore[index]
    assert model[0].bias is None  # type: ignore[index]


def test_what_cannot_work_is_refused_in_one_sentence() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    with pytest.raises(
        ConfigError, match=r"^dropout 0.1 cannot act on self_attn.out_proj: .* exclude the site$"
    ):
        peftx.attach(encoder, "vision.hydra", dropout=0.1, also_train=[])
    with pytest.raises(ConfigError, match="rank"):
        peftx.attach(small(), "vision.hydra", rank=0)
