from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ConfigError, PeftxError
from peftx_kernels import snell_update, use
from peftx_vision.methods.snell import SNELLDelta
from peftx_vision.methods.snella import SNELLADelta

METHODS = ["vision.snell", "vision.snella"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def vit(**options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 8, "num_classes": 3}
    model = timm.models.VisionTransformer(**{**small, **options})
    nn.init.normal_(model.get_parameter("head.weight"), std=0.2)
    return model.eval()


def attached(method: str, model: nn.Module | None = None, **options: Any) -> Any:
    """An adapter whose update is large enough to see."""
    adapted = peftx.attach(model or vit(), method, **{"scale": 1.0, **options})
    with torch.no_grad():
        for delta in deltas(adapted):
            delta.A.mul_(4.0)
            delta.B.mul_(4.0)
    return adapted


def deltas(adapted: Any) -> list[SNELLDelta]:
    return [m for m in adapted.model.modules() if isinstance(m, SNELLDelta)]


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("rank", "snell", "snella"),
    [(8, 1_327_104, 1_327_320), (16, 2_654_208, 2_654_424), (32, 5_308_416, 5_308_632)],
)
def test_counts_on_vit_b(rank: int, snell: int, snella: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        base = timm.create_model("vit_base_patch16_224")
    for method, count in ((METHODS[0], snell), (METHODS[1], snella)):
        model = copy.deepcopy(base)
        adapted = peftx.attach(model, method, rank=rank)
        assert len(deltas(adapted)) == 72  # q, k, v, out, up and down of twelve blocks
        assert (
            adapted.counts().adapter
            == count
            == sum(p.numel() for d in deltas(adapted) for p in d.parameters())
        )


def test_slices_of_a_fused_weight_are_maps_of_their_own() -> None:
    keys = sorted(d.site.key for d in deltas(attached("vision.snell", vit(depth=1))))
    names = ["attn.proj", "attn.qkv[k]", "attn.qkv[q]", "attn.qkv[v]", "mlp.fc1", "mlp.fc2"]
    assert keys == [f"blocks.0.{name}" for name in names]
    separate = nn.ModuleDict({n: nn.Linear(8, 8) for n in ("q_proj", "k_proj", "v_proj", "out_proj")})
    separate.forward = lambda x: x  # type: ignore[assignment,method-assign]
    adapted = peftx.attach(separate, "vision.snell", also_train=[], targets=["re:.*_proj"])
    assert len(deltas(adapted)) == 4


def test_how_factors_start_and_how_large_the_update_is() -> None:
    layer = nn.Sequential(nn.Linear(768, 768, bias=False))
    for rank, bound, v_std, rms in ((8, 0.01804, 1.3e-3, 8e-5), (32, 0.00902, 6.2e-4, 2e-5)):
        adapted = peftx.attach(
            copy.deepcopy(layer),
            "vision.snell",
            targets="all-linear",
            also_train=[],
            rank=rank,
            sparsity=0.01,
        )
        (delta,) = deltas(adapted)
        for factor in (delta.A, delta.B):
            assert factor.shape == (2, 768, rank // 2)
            assert bound * 0.98 < float(factor.abs().max()) <= bound * 1.001
        update = delta.update()
        v = update.detach().abs().sqrt()
        assert float(v.square().mean().sqrt()) == pytest.approx(v_std, rel=0.1)
        x = torch.randn(64, 768)
        assert float((x @ update.t()).square().mean().sqrt()) == pytest.approx(rms, rel=0.35)
        part = delta.part()
        exact = part._replace(a=part.a.detach().double(), b=part.b.detach().double(), mode="dense")
        assert int(torch.linalg.matrix_rank(snell_update(exact))) == 768


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.995])
def test_kept_entries(sparsity: float) -> None:
    adapted = attached("vision.snell", sparsity=sparsity)
    for delta in deltas(adapted):
        entries = delta.site.numel
        place = float(torch.tensor(sparsity)) * (entries - 1)
        assert int(delta.update().count_nonzero()) == entries - 1 - math.floor(place)


def test_modes() -> None:
    (dense,) = {d.mode for d in deltas(attached("vision.snell", sparsity=0.0))}
    assert dense == "dense"
    assert {d.mode for d in deltas(attached("vision.snell", sparsity=0.0, mode="soft"))} == {"soft"}
    assert {d.mode for d in deltas(attached("vision.snella", mixk=True))} == {"dense"}
    # without a threshold SNELLA keeps the factor |V|
    assert {d.mode for d in deltas(attached("vision.snella", initial_sparsity=0.0))} == {"official"}


def test_an_odd_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rank: must be even, because .* two groups \(got 7\)$"):
        peftx.attach(vit(), "vision.snell", rank=7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["official", "paper", "soft"])
def test_merged_is_unmerged(method: str, mode: str) -> None:
    adapted = attached(method, mode=mode)
    x = images()
    with torch.no_grad():
        y = adapted.model(x)
        with adapted.disabled():
            assert (adapted.model(x) - y).abs().max() > 1e-3
        plain = vit()
        for key, value in plain.named_parameters():
            module = adapted.model.get_submodule(key.rpartition(".")[0])
            value.copy_(getattr(module, key.rpartition(".")[2]))
        assert (plain(x) - y).abs().max() < 1e-6 * max(1.0, float(y.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_bit_for_bit(method: str, tmp_path: Path) -> None:
    adapted = attached(method)
    if method == "vision.snella":
        for index, delta in enumerate(deltas(adapted)):
            delta.kept.fill_(delta.site.numel // (index + 2))
    y = adapted.model(images())
    artifacts.save(adapted, tmp_path / "a")
    loaded = artifacts.load(vit(), tmp_path / "a")
    assert torch.equal(loaded.model(images()), y)
    assert [d.rate() for d in deltas(loaded)] == [d.rate() for d in deltas(adapted)]


@pytest.mark.parametrize("method", METHODS)
def test_copies_are_equal_and_independent(method: str) -> None:
    adapted = attached(method)
    other = copy.deepcopy(adapted.model)
    y = adapted.model(images())
    assert torch.equal(other(images()), y)
    with torch.no_grad():
        for delta in deltas(peftx.adapted(other)):
            delta.A.add_(0.3)
            if isinstance(delta, SNELLADelta):
                delta.kept.fill_(delta.site.numel // 2)
    assert torch.equal(adapted.model(images()), y) and not torch.equal(other(images()), y)


@pytest.mark.parametrize("method", METHODS)
def test_samples_of_one_batch_go_through_different_adapters(method: str) -> None:
    adapted = attached(method)
    adapted.attach("core.lora", name="lora")
    with torch.no_grad():
        for key, parameter in adapted.named_parameters("lora"):
            if key.endswith(".B"):
                parameter.normal_(std=0.3)
    x, alone = images(3), {}
    with torch.no_grad():
        for name in ("default", "lora"):
            adapted.activate(name)
            alone[name] = adapted.model(x)
        with adapted.per_sample(["lora", "default", None]):
            mixed = adapted.model(x)
        with adapted.disabled():
            alone["base"] = adapted.model(x)
    want = torch.stack([alone["lora"][0], alone["default"][1], alone["base"][2]])
    torch.testing.assert_close(mixed, want, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        adapted.activate("default", "lora")  # one on the other
        both = adapted.model(x)
    assert (both - alone["default"]).abs().max() > 1e-3 and (both - alone["lora"]).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_recomputed_activations_change_nothing(method: str) -> None:
    found = []
    for recompute in (False, True):
        adapted = attached(method, recompute_activations=recompute)
        adapted.model.eval()
        loss = adapted.model(images()).square().sum()
        found.append([loss, *torch.autograd.grad(loss, list(adapted.parameters()))])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_reference_in_a_model(method: str) -> None:
    found = []
    for tier in ("eager", "reference"):
        use(tier)
        try:
            adapted = attached(method, sparsity=0.6)
            loss = adapted.model(images()).square().sum()
            found.append([loss, *torch.autograd.grad(loss, list(adapted.parameters()))])
        finally:
            use(None)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv1d(4, 6, 3, stride=2, padding_mode="circular", padding=1),
    ],
    ids=["conv2d", "groups", "conv1d"],
)
def test_convolutions(method: str, layer: nn.Module) -> None:
    model = nn.Sequential(copy.deepcopy(layer))
    adapted = attached(method, model, targets="glob:*", also_train=[])
    (delta,) = deltas(adapted)
    out, width = delta.site.matrix
    assert delta.A.shape[1] == width == delta.site.numel // out
    x = torch.randn(2, 4, *(9,) * (layer.weight.dim() - 2))  # type: ignore[operator,union-attr]
    y = model.eval()(x)
    plain = copy.deepcopy(layer)
    for cls in type(plain).__mro__:
        if cls in (nn.Conv1d, nn.Conv2d):
            want = cls._conv_forward(plain, x, model[0].weight, model[0].bias)
            torch.testing.assert_close(y, want, rtol=0, atol=1e-6)
    gradients = torch.autograd.grad(y.square().sum(), list(adapted.parameters()))
    assert all(g.isfinite().all() for g in gradients) and gradients[0].abs().max() > 0


def test_dropout_and_drop_path_only_train() -> None:
    for options in ({"dropout": 0.5}, {"drop_path": 0.5}):
        adapted = attached("vision.snell", **options)
        y = adapted.model(images())
        assert torch.equal(adapted.model(images()), y)
        adapted.model.train()
        assert not torch.equal(adapted.model(images()), adapted.model(images()))
        conv = attached(
            "vision.snell", nn.Sequential(nn.Conv2d(3, 4, 3)), targets="glob:*", also_train=[], **options
        )
        conv.model.train()
        assert not torch.equal(conv.model(images()), conv.model(images()))
    with pytest.raises(ConfigError, match="dropout cannot act on"):
        model = nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=True))
        peftx.attach(model, "vision.snell", also_train=[], dropout=0.1)


def test_the_class_token_is_trained_when_asked_for() -> None:
    without, with_token = attached("vision.snell"), attached("vision.snell", train_cls=True)
    assert with_token.counts().trainable == without.counts().trainable + 32
    loss = with_token.model(images()).sum()
    loss.backward()
    (token,) = [p for key, p in with_token.named_parameters() if "cls_token" in key]
    assert token.grad is not None and token.grad.abs().max() > 0
    with pytest.raises(ConfigError, match="class token, which this model does not have"):
        peftx.attach(
            nn.Sequential(nn.Linear(4, 4)),
            "vision.snell",
            targets="all-linear",
            also_train=[],
            train_cls=True,
        )


@pytest.mark.parametrize("method", METHODS)
def test_sparse_export(method: str) -> None:
    adapted = attached(method, sparsity=0.9)
    for delta in deltas(adapted):
        if isinstance(delta, SNELLADelta):
            assert delta.sparse() is None  # everything but 1 % is kept at first
            delta.kept.fill_(delta.site.numel // 10)
        found = delta.sparse()
        assert found is not None
        indices, values = found
        assert indices.dtype == torch.int64 and len(indices) == len(values) <= delta.site.numel // 10 + 1
        dense = torch.zeros(delta.site.numel).index_put_((indices,), values).view(delta.site.shape)
        assert torch.equal(dense, delta.update())
    assert all(d.sparse() is None for d in deltas(attached("vision.snell", sparsity=0.5)))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_a_map_is_kept_for_the_backward(method: str) -> None:
    """At most LoRA's bytes at rank 8 on the same sites, and no tensor of a map's shape among them."""

    def kept(name: str, **options: Any) -> tuple[int, set[tuple[int, ...]]]:
        model = vit()
        targets = ["attention.q", "attention.k", "attention.v", "attention.out", "mlp"]
        adapted = peftx.attach(model, name, rank=8, targets=targets, **options)
        own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        seen: dict[int, int] = {}
        shapes = set()

        def pack(t: Tensor) -> Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
                shapes.add(tuple(t.shape))
            return t

        if method == name == "vision.snella":
            adapted.bind(torch.optim.SGD(adapted.parameters(), 0.1), total_steps=4)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = model(images(8).requires_grad_()).sum()
        assert loss.requires_grad
        return sum(seen.values()), shapes

    ours, shapes = kept(method)
    lora, _ = kept("core.lora")
    assert ours <= lora
    maps = {(32, 32), (96, 32), (128, 32), (32, 128), (32, 96)}
    assert not maps & shapes


def test_half_precision_models_feel_small_updates() -> None:
    model = vit().bfloat16()
    adapted = peftx.attach(model, "vision.snell", sparsity=0.5)
    assert all(d.A.dtype == torch.float32 for d in deltas(adapted))
    layer = model.get_submodule("blocks.0.mlp.fc1")
    x = torch.randn(2, 5, 32).bfloat16()
    with torch.no_grad(), adapted.disabled():
        base = layer(x)
    (delta,) = [d for d in deltas(adapted) if d.site.key == "blocks.0.mlp.fc1"]
    assert F.linear(x, delta.update().bfloat16()).abs().max() > 0
    loss = layer(x).float().sum()
    gradients = torch.autograd.grad(loss, (delta.A, delta.B))
    assert base.dtype == torch.bfloat16 and all(
        g.dtype == torch.float32 and g.abs().max() > 0 for g in gradients
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("where", ["model", "autocast"])
def test_half_precision_convolutions_feel_small_updates(method: str, dtype: torch.dtype, where: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False))
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    model.to(dtype if where == "model" else torch.float32)
    adapted = peftx.attach(model, method, targets="glob:*", also_train=[], scale=0.02)
    (delta,) = deltas(adapted)
    with torch.no_grad():
        for factor in adapted.parameters():
            factor.mul_(factor.numel() > 1)  # SNELLA without its mixture, which is large in a map this small
        getattr(delta, "gamma", torch.empty(1)).fill_(1.0)
    update = delta.update().detach()
    # far below the weight's last place, and below the smallest normal number of float16
    assert 0 < float(update.abs().max()) < 2.0**-11
    x = torch.randn(2, 2, 5, 5).repeat_interleave(2, 1)
    x[:, 1::2] *= -1  # channels cancel: the base gives zero
    want = F.conv2d(x.to(dtype).float(), update)
    if where == "model":
        y = model.eval()(x.to(dtype))
    else:
        with torch.autocast("cpu", dtype):
            y = model.eval()(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), want, rtol=0, atol=0.02 * float(want.abs().max()))
    gradients = torch.autograd.grad(y.float().square().sum(), list(adapted.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_a_half_precision_update_on_another_adapters_is_felt() -> None:
    model = nn.Sequential(nn.Linear(4, 6, bias=False)).bfloat16()
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    adapted = peftx.attach(model, "core.lora", name="below", targets="glob:*", also_train=[])
    adapted.attach("vision.snell", name="above", targets="glob:*", also_train=[])
    adapted.activate("below", "above")
    (delta,) = deltas(adapted)
    x = torch.tensor([[1.0, -1.0, 2.0, -2.0]]).bfloat16()
    want = F.linear(x.float(), delta.update().detach())
    torch.testing.assert_close(model(x).float(), want, rtol=0, atol=0.02 * float(want.abs().max()))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.0, "must be less than 1"),
        (1.5, "must be less than 1"),
        (-0.1, "must be at least 0"),
        (float("nan"), "finite"),
    ],
)
@pytest.mark.parametrize(
    ("method", "option"),
    [("vision.snell", "sparsity"), ("vision.snella", "sparsity"), ("vision.snella", "initial_sparsity")],
)
def test_a_sparsity_outside_its_range_is_one_sentence(
    method: str, option: str, value: float, words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{option}.*{words}") as caught:
        peftx.attach(vit(), method, **{option: value})
    assert "\n" not in str(caught.value)


def test_errors_are_the_packages_own() -> None:
    with pytest.raises(PeftxError):
        peftx.attach(vit(), "vision.snell", sparsity=1.0)
