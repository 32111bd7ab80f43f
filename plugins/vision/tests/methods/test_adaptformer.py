from __future__ import annotations

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
from peftx_vision.methods.adaptformer import AdaptFormerInsert

Small = Callable[..., nn.Module]
Images = Callable[..., Tensor]

BLOCKS = {
    "vit": ["blocks.0", "blocks.1", "blocks.2"],
    "vit_scaled": ["blocks.0", "blocks.1"],
    "deit": ["blocks.0", "blocks.1"],
    "swin": ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "gelu": {"activation": "gelu"},
    "no_bias": {"bias": False},
    "norm_in": {"norm": "in"},
    "norm_out": {"norm": "out"},
    "learned": {"learn_scale": True},
    "normed": {"input": "normed"},
    "sequential": {"form": "sequential"},
    "sequential_norms": {"form": "sequential", "norm": "in", "learn_scale": True},
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def attached(model: nn.Module, spread: float = 0.0, **options: Any) -> Any:
    adapted = peftx.attach(model, "vision.adaptformer", **options)
    with torch.no_grad():
        for insert in inserts(adapted).values():
            for parameter in insert.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
    return adapted


def inserts(adapted: Any) -> dict[str, AdaptFormerInsert]:
    return {m.site.key: m for m in adapted.model.modules() if isinstance(m, AdaptFormerInsert)}


class Branch(nn.Module):
    """The official Adapter module, without its residual, in modules of torch."""

    def __init__(self, insert: AdaptFormerInsert, options: dict[str, Any]) -> None:
        super().__init__()
        bias = bool(options.get("bias", True))
        hidden, width = insert.down.shape
        self.down, self.up = nn.Linear(width, hidden, bias), nn.Linear(hidden, width, bias)
        self.norm_at = options.get("norm", "none")
        self.norm = nn.LayerNorm(width)
        self.act = nn.GELU() if options.get("activation") == "gelu" else nn.ReLU()
        self.scale = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
        self.double()
        self.pairs = [
            (insert.down, self.down.weight),
            (insert.up, self.up.weight),
            *([(insert.down_bias, self.down.bias), (insert.up_bias, self.up.bias)] if bias else []),
            *([(insert.norm_weight, self.norm.weight)] if insert.norm_weight is not None else []),
            *([(insert.norm_bias, self.norm.bias)] if insert.norm_bias is not None else []),
            *([(insert.scale, self.scale)] if options.get("learn_scale") else []),
        ]
        assert len(self.pairs) == len(list(insert.parameters()))
        with torch.no_grad():
            for theirs, mine in self.pairs:
                mine.copy_(theirs.reshape(mine.shape))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        added = self.up(self.act(self.down(self.norm(x) if self.norm_at == "in" else x))) * self.scale
        return self.norm(added) if self.norm_at == "out" else added  # type: ignore[no-any-return]


def hook(model: nn.Module, key: str, branch: Branch, options: dict[str, Any]) -> None:
    """Put a branch into a plain model; what it reads is caught where timm's blocks run it."""
    block = model.get_submodule(key)
    if options.get("form") == "sequential":
        block.register_forward_hook(lambda m, a, y: y + branch(y))
        return
    seen: list[Tensor] = []
    reads: Any = block.mlp if options.get("input") == "normed" else block.norm2
    reads.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    block.register_forward_hook(lambda m, a, y: y + branch(seen.pop()).view_as(y))


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        *((name, chosen) for name in BLOCKS for chosen in ("default", "sequential")),
        *(("vit_scaled", chosen) for chosen in OPTIONS if chosen not in ("default", "sequential")),
    ],
)
def test_values_and_gradients_are_those_of_plain_branches(
    name: str, chosen: str, small: Small, images: Images
) -> None:
    options = OPTIONS[chosen]
    plain = small(name, torch.float64).requires_grad_(False)
    adapted = attached(small(name, torch.float64), spread=0.3, width=5, **options)
    found = inserts(adapted)
    suffix = ".mlp" if options.get("form") == "sequential" else ""
    assert sorted(found) == [f"{key}{suffix}" for key in BLOCKS[name]]
    branches = {key: Branch(insert, options) for key, insert in found.items()}
    for key, branch in branches.items():
        hook(plain, key, branch, options)
    x, weight = images(torch.float64), torch.randn(3, 3, dtype=torch.float64)
    y, want = adapted.model(x), plain(x)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-10)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    for key, branch in branches.items():
        for theirs, mine in branch.pairs:
            assert theirs.grad is not None and theirs.grad.any() and mine.grad is not None  # type: ignore[union-attr]
            torch.testing.assert_close(
                theirs.grad.reshape(mine.shape),
                mine.grad,
                rtol=1e-8,
                atol=1e-9,
                msg=key,  # type: ignore[union-attr]
            )


def test_the_equation_of_a_block(small: Small) -> None:
    """Written out; LayerScale and drop-path act on the MLP and not on the branch."""
    adapted = attached(small("vit_scaled", torch.float64), spread=0.3, width=5)
    block: Any = adapted.model.get_submodule("blocks.1")
    insert, x = inserts(adapted)["blocks.1"], torch.randn(2, 5, 24, dtype=torch.float64)
    assert insert.down_bias is not None and insert.up_bias is not None
    with torch.no_grad():
        h = x + block.ls1(block.attn(block.norm1(x)))
        hidden = (h @ insert.down.t() + insert.down_bias).clamp(min=0)
        branch = 0.1 * (hidden @ insert.up.t() + insert.up_bias)
        torch.testing.assert_close(block(x), h + block.ls2(block.mlp(block.norm2(h))) + branch)
        # a drop-path that drops all, and the reading of the stream itself, whatever the norm makes of it
        block.drop_path2 = nn.Threshold(float("inf"), 0.0)
        block.norm2.weight.zero_()
        torch.testing.assert_close(block(x), h + branch)


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("chosen", list(OPTIONS))
def test_it_starts_as_the_base_bit_for_bit(name: str, chosen: str, small: Small, images: Images) -> None:
    for train in (False, True):
        model, x = small(name).train(train), images()
        before = model(x)
        assert torch.equal(attached(model, **OPTIONS[chosen]).model.train(train)(x), before)


def test_the_first_step_moves_the_second_maps_alone(small: Small, images: Images) -> None:
    adapted = attached(small().train())
    F.cross_entropy(adapted.model(images()), torch.tensor([0, 1, 2])).backward()
    own = {id(parameter) for parameter in adapted.parameters()}
    assert all(p.grad is None for p in adapted.model.parameters() if id(p) not in own)
    for insert in inserts(adapted).values():
        assert insert.down_bias is not None and insert.up_bias is not None
        for still, moved in ((insert.down, insert.up), (insert.down_bias, insert.up_bias)):
            assert still.grad is not None and not still.grad.any()
            assert moved.grad is not None and moved.grad.any()


def test_the_start_of_the_maps(small: Small) -> None:
    insert = inserts(attached(small()))["blocks.0"]
    bound = 24**-0.5
    assert insert.down.shape == (64, 24) and insert.scale == 0.1
    assert 0.98 * bound < float(insert.down.detach().abs().max()) <= bound
    assert insert.down_bias is not None and insert.up_bias is not None
    assert not any(p.any() for p in (insert.down_bias, insert.up, insert.up_bias))
    learned = inserts(attached(small(), learn_scale=True))["blocks.0"].scale
    assert isinstance(learned, nn.Parameter) and learned.tolist() == [1.0]


@pytest.mark.parametrize(
    ("options", "adapter"),
    [
        ({"width": 1}, 27_660),
        ({"width": 8}, 156_768),
        ({}, 1_189_632),
        ({"width": 8, "bias": False}, 147_456),
        ({"width": 8, "norm": "in", "learn_scale": True}, 156_768 + 12 * (2 * 768 + 1)),
        ({"form": "sequential"}, 1_189_632),
    ],
)
def test_counts(options: dict[str, Any], adapter: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=100)
    counts = peftx.attach(model, "vision.adaptformer", **options).counts()
    assert (counts.adapter, counts.trainable) == (adapter, adapter + 76_900)
    if not options:
        assert counts.trainable == 1_266_532


def test_the_scale_scales_and_zero_is_the_base(small: Small, images: Images) -> None:
    model, x = small(), images()
    before = model(x)
    adapted = attached(model, also_train=[], dropout=0.0)
    optimizer = torch.optim.Adam(adapted.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    insert, block = inserts(adapted)["blocks.2"], model.get_submodule("blocks.2")
    tokens = torch.randn(2, 5, 24)
    with torch.no_grad():
        with adapted.disabled():
            y = block(tokens)
        added = block(tokens) - y
        insert.scale = 0.3
        torch.testing.assert_close(block(tokens) - y, 3 * added, rtol=1e-4, atol=1e-5)
        for each in inserts(adapted).values():
            each.scale = 0.0
        assert not torch.equal(before, y) and torch.equal(model(x), before)


def test_units_that_never_fire_leave_the_last_bias(small: Small) -> None:
    adapted = attached(small(), spread=0.3)
    insert = inserts(adapted)["blocks.0"]
    assert insert.down_bias is not None and insert.up_bias is not None
    with torch.no_grad():
        insert.down_bias.fill_(-1e3)
        tokens = torch.randn(2, 5, 24)
        assert torch.equal(insert(tokens), (0.1 * insert.up_bias).expand(2, 5, 24))


def test_dropout_is_on_the_hidden_values_in_training_only(small: Small) -> None:
    """With one hidden unit a token has the branch whole, at twice the size, or its last bias alone."""
    insert = inserts(attached(small(), spread=0.5, width=1, dropout=0.5))["blocks.0"]
    assert insert.down_bias is not None and insert.up_bias is not None
    x = torch.randn(400, 24)
    with torch.no_grad():
        hidden = (x @ insert.down.t() + insert.down_bias).relu()
        forms = [0.1 * (factor * hidden @ insert.up.t() + insert.up_bias) for factor in (0, 2)]
        got, fires = insert.train()(x), hidden[:, 0] > 0.1
        hits = torch.stack([torch.isclose(got, form, atol=1e-5).all(1) for form in forms])[:, fires]
        assert hits.any(0).all() and 0.35 < float(hits[0].float().mean()) < 0.65
        insert.eval()
        assert torch.equal(insert(x), insert(x))
        torch.testing.assert_close(insert(x), 0.1 * (hidden @ insert.up.t() + insert.up_bias))


@pytest.mark.parametrize("chosen", ["default", "sequential_norms"])
def test_saved_and_loaded_bit_for_bit(chosen: str, small: Small, images: Images, tmp_path: Path) -> None:
    adapted = attached(small("swin"), spread=0.3, **OPTIONS[chosen])
    y = adapted.model(images())
    artifacts.save(adapted, tmp_path / "a")
    assert torch.equal(artifacts.load(small("swin"), tmp_path / "a").model(images()), y)
    with pytest.raises(ArtifactError, match="cannot be merged"):
        artifacts.merge(adapted)


def test_the_official_head_is_the_models_own(small: Small, images: Images, tmp_path: Path) -> None:
    """A batch norm in front of the classifier, put there by who builds the model: its statistics come along."""

    def build() -> nn.Module:
        model: Any = small()
        torch.manual_seed(1)
        model.head = nn.Sequential(nn.BatchNorm1d(24, affine=False, eps=1e-6), nn.Linear(24, 3))
        return model  # type: ignore[no-any-return]

    adapted = attached(build(), spread=0.3, trunk="train")
    for _ in range(3):
        adapted.model.train()(images())
    y = adapted.model.eval()(images())
    artifacts.save(adapted, tmp_path / "a")
    fresh = artifacts.load(build(), tmp_path / "a")
    assert torch.equal(fresh.model.eval()(images()), y)
    statistics = [
        p for n, p in fresh.model.named_buffers() if n.startswith("head.0") and "peftx" in n and p.dim()
    ]
    assert len(statistics) == 2
    for value, base in zip(statistics, (0.0, 1.0), strict=True):
        value.fill_(base)
    assert not torch.allclose(fresh.model(images()), y, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["none", "in", "out"])
def test_the_sum_has_the_type_of_the_stream(norm: str, dtype: torch.dtype, small: Small) -> None:
    adapted = attached(small("vit", dtype), spread=0.1, norm=norm)
    assert {p.dtype for i in inserts(adapted).values() for p in i.parameters()} == {torch.float32}
    assert adapted.model.get_submodule("blocks.0")(torch.randn(2, 5, 24).to(dtype)).dtype == dtype


def test_libraries_name_the_norm_in_their_own_ways() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    vit = transformers.ViTModel(transformers.ViTConfig(**shape, image_size=8, patch_size=4)).eval()
    x, caught = torch.randn(2, 3, 8, 8), []
    layer: Any = next(m for m in vit.modules() if type(m).__name__ == "ViTLayer")
    layer.layernorm_after.register_forward_pre_hook(lambda m, a: caught.append(a[0]))
    before = vit(x).last_hidden_state
    adapted = attached(vit, spread=0.5, also_train=[])
    (insert,) = inserts(adapted).values()
    assert insert.site.read is not None and insert.site.read.endswith("layernorm_after")
    want = vit.layernorm(_unnormed(adapted, vit, x) + insert(caught[0]))
    torch.testing.assert_close(vit(x).last_hidden_state, want)
    assert not torch.allclose(want, before, atol=1e-2)


def _unnormed(adapted: Any, vit: Any, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = vit.layernorm.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    with adapted.disabled():
        vit(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_own_layer_says_where_its_norms_are(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    if not norm_first:
        with pytest.raises(SelectionError, match=r"\(TransformerEncoderLayer\) has no norm"):
            attached(model, also_train=[])
        return
    block: Any = model.layers[1]
    x = torch.randn(2, 5, 8)
    y = block(x)
    insert = inserts(attached(model, spread=0.5, also_train=[]))["layers.1"]
    normed = block.norm1(x)
    h = x + block.self_attn(normed, normed, normed)[0]
    torch.testing.assert_close(block(x), y + insert(h))


def test_what_cannot_work_is_refused_in_one_sentence(small: Small) -> None:
    timm = pytest.importorskip("timm")
    for name, kind in (("convnext", "ConvNeXtBlock"), ("swin_v2", "SwinTransformerV2Block")):
        with pytest.raises(SelectionError, match=rf"\({kind}\) has no norm .*set form to sequential"):
            attached(small(name))
        assert len(inserts(attached(small(name), form="sequential"))) == (4 if name == "convnext" else 3)
    with pytest.raises(SelectionError, match=r"^blocks\.0\.mlp is the mlp of a block.*target the block"):
        attached(small(), targets=["mlp"])
    with pytest.raises(SelectionError, match=r"^nothing in the model matches 'block'"):
        attached(timm.create_model("resnet18", num_classes=2))
    with pytest.raises(ConfigError, match="input is a choice of the parallel form"):
        attached(small(), form="sequential", input="normed")
    with pytest.raises(ConfigError, match="activation"):
        attached(small(), activation="silu")
