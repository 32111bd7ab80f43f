from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError, ConfigError, SelectionError
from peftx_vision.methods.adaptertune import AdapterTuneInsert

Small = Callable[..., nn.Module]
Images = Callable[..., Tensor]

#: embedding width of the three networks of the paper
WIDTHS = {"vit_base_patch16_224": 768, "vit_small_patch16_224": 384, "deit_tiny_patch16_224": 192}
BLOCKS = {
    "vit": ["blocks.0", "blocks.1", "blocks.2"],
    "deit": ["blocks.0", "blocks.1"],
    "swin": ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"],
    "swin_v2": ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"],
    "convnext": [f"stages.{stage}.blocks.0" for stage in range(4)],
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def attached(model: nn.Module, spread: float = 0.0, **options: Any) -> Any:
    adapted = peftx.attach(model, "vision.adaptertune", **options)
    with torch.no_grad():
        for insert in inserts(adapted).values():
            for parameter in insert.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
    return adapted


def inserts(adapted: Any) -> dict[str, AdapterTuneInsert]:
    return {m.site.key: m for m in adapted.model.modules() if isinstance(m, AdapterTuneInsert)}


def on_meta(name: str, classes: int) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return timm.create_model(name, num_classes=classes)  # type: ignore[no-any-return]


class Plain(nn.Module):
    """A bottleneck as the card writes it, in a hook behind a block."""

    def __init__(self, insert: AdapterTuneInsert, alpha: float, channel_dim: int) -> None:
        super().__init__()
        hidden, width = insert.down.shape
        self.down, self.up = nn.Linear(width, hidden).double(), nn.Linear(hidden, width).double()
        self.alpha, self.channel_dim = alpha, channel_dim
        with torch.no_grad():
            for mine, theirs in zip(self.parameters(), self.of(insert), strict=True):
                mine.copy_(theirs)

    @staticmethod
    def of(insert: AdapterTuneInsert) -> list[nn.Parameter]:
        return [insert.down, insert.down_bias, insert.up, insert.up_bias]

    def forward(self, _module: Any, _args: Any, y: Tensor) -> Tensor:
        tokens = y.movedim(self.channel_dim, -1)
        added = self.alpha * self.up(F.gelu(self.down(tokens)))
        return y + added.movedim(-1, self.channel_dim)


@pytest.mark.parametrize("name", list(BLOCKS))
def test_values_and_gradients_are_those_of_bottlenecks_behind_the_blocks(
    name: str, small: Small, images: Images
) -> None:
    plain = small(name, torch.float64).requires_grad_(False)
    adapted = attached(small(name, torch.float64), spread=0.3, rank=3, alpha=0.7)
    found = inserts(adapted)
    assert sorted(found) == BLOCKS[name]
    hooks = {}
    for key, insert in found.items():
        hooks[key] = Plain(insert, 0.7, 1 if name == "convnext" else -1)
        plain.get_submodule(key).register_forward_hook(hooks[key])
    x, weight = images(torch.float64), torch.randn(3, 3, dtype=torch.float64)
    y, want = adapted.model(x), plain(x)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-11)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    for key, insert in found.items():
        for mine, theirs in zip(Plain.of(insert), hooks[key].parameters(), strict=True):
            assert mine.grad is not None and mine.grad.any()
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("train", [False, True])
def test_it_starts_as_the_base_bit_for_bit(name: str, train: bool, small: Small, images: Images) -> None:
    model, x = small(name).train(train), images()
    before = model(x)
    assert torch.equal(attached(model).model.train(train)(x), before)


def test_the_first_step_moves_the_second_maps_alone(small: Small, images: Images) -> None:
    adapted = attached(small())
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1)

    def backward() -> None:
        optimizer.zero_grad()
        F.cross_entropy(adapted.model(images()), torch.tensor([0, 1, 2])).backward()

    backward()
    own = {id(parameter) for parameter in adapted.parameters()}
    assert all(p.grad is None for p in adapted.model.parameters() if id(p) not in own)
    for insert in inserts(adapted).values():
        assert insert.down.grad is not None and insert.down_bias.grad is not None
        assert insert.up.grad is not None and insert.up_bias.grad is not None
        assert not insert.down.grad.any() and not insert.down_bias.grad.any()
        assert insert.up.grad.any() and insert.up_bias.grad.any()
    optimizer.step()
    backward()
    assert all(p.grad.any() for insert in inserts(adapted).values() for p in insert.parameters())


def test_the_start_of_the_maps(small: Small) -> None:
    zero = inserts(attached(small(), rank=8))["blocks.0"]
    bound = (6 / (24 + 8)) ** 0.5
    assert float(zero.down.detach().abs().max()) == pytest.approx(bound, rel=0.1)
    assert float(zero.down.detach().abs().max()) <= bound
    assert not any(p.any() for p in (zero.down_bias, zero.up, zero.up_bias))
    little = torch.cat(
        [i.up.detach().flatten() for i in inserts(attached(small(), rank=64, init="small")).values()]
    )
    assert float(little.std()) == pytest.approx(1e-4, rel=0.05)
    insert = inserts(attached(small(), init="small"))["blocks.1"]
    assert insert.up_bias.any() and not insert.down_bias.any()
    assert float(insert.up_bias.detach().abs().max()) < 1e-3


@pytest.mark.parametrize(("every", "places"), [(1, 12), (2, 6), (3, 4)])
@pytest.mark.parametrize("name", list(WIDTHS))
def test_counts(name: str, every: int, places: int) -> None:
    width = WIDTHS[name]
    adapted = peftx.attach(on_meta(name, 100), "vision.adaptertune", every=every)
    counts, found = adapted.counts(), inserts(adapted)
    assert set(found) == {f"blocks.{index}" for index in range(0, 12, every)}
    assert counts.adapter == places * (2 * 16 * width + 16 + width)
    assert counts.trainable - counts.adapter == 100 * (width + 1)
    if every == 1:
        assert counts.adapter == {768: 304_320, 384: 152_256, 192: 76_224}[width]
        share = {768: 0.44, 384: 0.88, 192: 1.72}[width]
        assert 100 * counts.trainable / counts.base_total == pytest.approx(share, abs=0.006)


def test_the_share_of_the_abstract() -> None:
    """0.92 per cent: mean over three networks and five data sets of what is trained, to what full tuning trains."""
    shares = []
    for name in WIDTHS:
        for classes, datasets in ((10, 2), (100, 1), (37, 1), (101, 1)):
            model = on_meta(name, classes)
            counts = peftx.explain(model, "vision.adaptertune").to_dict()["counts"]
            shares += [100 * counts["trainable"] / sum(p.numel() for p in model.parameters())] * datasets
    assert len(shares) == 15
    assert sum(shares) / 15 == pytest.approx(0.917, abs=5e-4)


def test_alpha_scales_the_bottleneck_and_zero_is_the_base(small: Small, images: Images) -> None:
    model, x = small(), images()
    before = model(x)
    adapted = attached(
        model, targets=["blocks.2"], also_train=[]
    )  # the last: the norm behind it is not linear
    optimizer = torch.optim.Adam(adapted.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    (insert,) = inserts(adapted).values()
    block: Any = model.get_submodule("blocks.2")
    tokens = torch.randn(2, 5, 24)
    with adapted.disabled():
        y = block(tokens)
    added = block(tokens) - y
    insert.alpha = 3.0
    torch.testing.assert_close(block(tokens) - y, 3 * added, rtol=1e-4, atol=1e-5)
    insert.alpha = 0.0
    assert torch.equal(model(x), before)
    without = attached(small(), spread=1.0, alpha=0.0)
    assert torch.equal(without.model(x), before)


def test_as_wide_as_the_model_it_holds_any_affine_map(small: Small) -> None:
    """Far from zero GELU is the identity, so D = 1 and a large bias leave U and b_U: no map stands transposed."""
    adapted = attached(small(), rank=24, targets=["blocks.0"])
    (insert,) = inserts(adapted).values()
    matrix, shift = torch.randn(24, 24), torch.randn(24)
    with torch.no_grad():
        insert.down.copy_(torch.eye(24))
        insert.down_bias.fill_(50.0)
        insert.up.copy_(matrix)
        insert.up_bias.copy_(shift - 50 * matrix.sum(1))
    tokens = torch.randn(2, 5, 24)
    torch.testing.assert_close(insert(tokens), tokens @ matrix.t() + shift, rtol=0, atol=1e-3)


def test_held_at_its_start_it_is_tuning_the_head(small: Small, images: Images) -> None:
    def trained(method: str) -> list[Tensor]:
        adapted = peftx.attach(small(), method)
        for insert in inserts(adapted).values():
            insert.requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 0.01)
        adapted.model.train()
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(adapted.model(images()), torch.tensor([0, 1, 2])).backward()
            optimizer.step()
        return [p.detach() for name, p in adapted.tensors().items() if name[0].startswith("head")]

    ours, head = trained("vision.adaptertune"), trained("core.head")
    assert len(ours) == 2 and all(map(torch.equal, ours, head))
    assert not torch.equal(ours[0], small().get_parameter("head.weight"))


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_saved_and_loaded_bit_for_bit(name: str, small: Small, images: Images, tmp_path: Path) -> None:
    adapted = attached(small(name), spread=0.3, every=2)
    y = adapted.model(images())
    artifacts.save(adapted, tmp_path / "a")
    assert torch.equal(artifacts.load(small(name), tmp_path / "a").model(images()), y)
    with pytest.raises(ArtifactError, match="cannot be merged"):
        artifacts.merge(adapted)


class Circles(nn.Module):
    """The toy of the official repository: a trunk 2-64-32 and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential()
        self.mlp.fc1, self.mlp.act, self.mlp.fc2 = nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mlp(x).relu())  # type: ignore[no-any-return]


def test_accuracy_does_not_fall_with_the_rank_on_the_official_toy() -> None:
    datasets = pytest.importorskip("sklearn.datasets")

    def points(maker: Any, **options: Any) -> tuple[Tensor, Tensor]:
        x, y = maker(n_samples=400, random_state=0, **options)
        return torch.tensor(x, dtype=torch.float32), torch.tensor(y)

    def fit(model: nn.Module, parameters: Any, x: Tensor, y: Tensor) -> float:
        optimizer = torch.optim.Adam(list(parameters), 5e-3)
        for _ in range(80):
            for part in torch.arange(400).split(100):
                optimizer.zero_grad()
                F.cross_entropy(model(x[part]), y[part]).backward()
                optimizer.step()
        return float((model(x).argmax(1) == y).float().mean())

    trunk = Circles()
    fit(trunk, trunk.parameters(), *points(datasets.make_moons, noise=0.1))
    x, y = points(datasets.make_circles, noise=0.08, factor=0.5)
    reached = []
    for rank in (1, 4, 32):
        torch.manual_seed(0)
        adapted = attached(copy.deepcopy(trunk), targets=["mlp"], also_train=["head"], rank=rank)
        reached.append(fit(adapted.model, adapted.parameters(), x, y))
    assert reached[1] >= reached[0] - 0.01 and reached[2] >= reached[1] - 0.01, reached
    assert reached[2] > 0.95, reached


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_sum_has_the_type_of_the_stream(dtype: torch.dtype, small: Small) -> None:
    adapted = attached(small("vit", dtype), spread=0.1, targets=["blocks.1"])
    (insert,) = inserts(adapted).values()
    assert {p.dtype for p in insert.parameters()} == {torch.float32}
    tokens = torch.randn(2, 5, 24).to(dtype)
    y = adapted.model.get_submodule("blocks.1")(tokens)
    with adapted.disabled():
        base = adapted.model.get_submodule("blocks.1")(tokens)
    hidden = F.gelu(F.linear(base.double(), insert.down.double(), insert.down_bias.double()))
    want = base.double() + F.linear(hidden, insert.up.double(), insert.up_bias.double())
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), want, rtol=2e-2, atol=2e-2)


def test_places_are_counted_in_the_models_own_order() -> None:
    timm = pytest.importorskip("timm")
    shape = {"embed_dim": 8, "num_heads": 1, "img_size": 8, "patch_size": 8, "num_classes": 2}
    model = timm.models.VisionTransformer(depth=12, **shape)
    keys = sorted(f"blocks.{index}" for index in (0, 5, 10))
    assert sorted(inserts(attached(copy.deepcopy(model), every=5))) == keys
    assert sorted(inserts(attached(copy.deepcopy(model), every=5, exclude=["blocks.0"]))) == keys[1:]
    behind = inserts(attached(model, every=4, targets=["mlp"]))
    assert sorted(behind) == ["blocks.0.mlp", "blocks.4.mlp", "blocks.8.mlp"]


def test_what_cannot_work_is_refused_in_one_sentence(small: Small) -> None:
    timm = pytest.importorskip("timm")
    with pytest.raises(SelectionError, match=r"^every 2 leaves none .*\(blocks\.1, for one\)"):
        attached(small(), every=2, targets=["blocks.1"])
    with pytest.raises(SelectionError, match=r"^nothing in the model matches 'block'"):
        attached(timm.create_model("resnet18", num_classes=2))
    with pytest.raises(ConfigError, match="rank"):
        attached(small(), rank=0)
