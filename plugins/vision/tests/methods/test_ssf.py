from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ConfigError, PeftxError, SelectionError
from peftx_vision.methods.ssf import SSFDelta


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _vit(timm: Any) -> nn.Module:
    options = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 16, "patch_size": 8, "num_classes": 3}
    return timm.models.VisionTransformer(init_values=0.7, **options)  # type: ignore[no-any-return]


def _deit(timm: Any) -> nn.Module:
    options = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 16, "patch_size": 8, "num_classes": 3}
    return timm.models.deit.VisionTransformerDistilled(**options)  # type: ignore[no-any-return]


def _swin(timm: Any) -> nn.Module:
    shape = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8}
    return timm.models.SwinTransformer(  # type: ignore[no-any-return]
        **shape, depths=(2, 1), num_heads=(1, 2), num_classes=3, drop_path_rate=0.0
    )


def _convnext(timm: Any) -> nn.Module:
    shape = {"depths": (1, 1, 1, 1), "dims": (6, 8, 10, 12), "patch_size": 2, "kernel_sizes": 3}
    return timm.models.ConvNeXt(  # type: ignore[no-any-return]
        **shape, num_classes=3, output_stride=8, ls_init_value=0.7
    )


MODELS = {"vit": _vit, "deit": _deit, "swin": _swin, "convnext": _convnext}

#: after which modules the card puts a pair
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
PLACES = {
    "vit": ["patch_embed.proj", "norm", *(f"blocks.{i}.{name}" for i in range(2) for name in BLOCK)],
    "deit": ["patch_embed.proj", "norm", *(f"blocks.0.{name}" for name in BLOCK)],
    "swin": [
        *("patch_embed.proj", "patch_embed.norm", "layers.1.downsample.norm", "norm"),
        *(f"layers.{at}.{name}" for at in ("0.blocks.0", "0.blocks.1", "1.blocks.0") for name in BLOCK),
    ],
    "convnext": [
        *("stem.0", "stem.1", "head.norm", *(f"stages.{i}.downsample.{j}" for i in range(4) for j in (0, 1))),
        *(
            f"stages.{i}.blocks.0.{name}"
            for i in range(4)
            for name in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2")
        ),
    ],
}


def small(name: str = "vit", dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small timm model none of whose values rests at zero or one."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model: nn.Module = MODELS[name](timm)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def images(dtype: torch.dtype = torch.float32, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype)


def attached(model: nn.Module, spread: float = 0.0, **options: Any) -> Any:
    adapted = peftx.attach(model, "vision.ssf", **options)
    with torch.no_grad():
        for delta in deltas(adapted).values():
            for parameter in delta.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
    return adapted


def deltas(adapted: Any) -> dict[str, SSFDelta]:
    return {m.site.key: m for m in adapted.model.modules() if isinstance(m, SSFDelta)}


def test_count_on_vit_b() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=100)
    adapted = peftx.attach(model, "vision.ssf")
    counts, pairs = adapted.counts(), deltas(adapted)
    assert len(pairs) == 12 * 6 + 2
    assert counts.adapter == 2 * (11 * 12 * 768 + 2 * 768) == 205_824
    assert counts.trainable == 205_824 + 769 * 100
    # the outputs of the patch convolution and of qkv, proj, fc1 and fc2; norms take the pair into their own weights
    assert adapted.explain().memory["per_token"] == 4 * (12 * 9 + 1) * 768
    assert counts.adapter == sum(p.numel() for delta in pairs.values() for p in delta.parameters())


@pytest.mark.parametrize("name", list(MODELS))
def test_where_the_pairs_are(name: str) -> None:
    adapted = attached(small(name))
    assert sorted(deltas(adapted)) == sorted(PLACES[name])
    for key, delta in deltas(adapted).items():
        module = adapted.model.get_submodule(key)
        assert delta.gamma.shape == (module._parameters["weight"].shape[0],)


@pytest.mark.parametrize("name", list(MODELS))
def test_values_and_gradients_are_those_of_pairs_behind_the_layers(name: str) -> None:
    """Against hooks on a plain model, which know nothing of weights."""
    plain = small(name, torch.float64).requires_grad_(False)
    adapted = attached(small(name, torch.float64), spread=0.3)
    pairs = {key: (d.gamma.detach().clone(), d.beta) for key, d in deltas(adapted).items()}
    own: dict[str, tuple[Tensor, Tensor]] = {}
    for key, (gamma, beta) in pairs.items():
        assert beta is not None
        gamma, beta = gamma.requires_grad_(), beta.detach().clone().requires_grad_()
        own[key] = (gamma, beta)
        module = plain.get_submodule(key)
        first = isinstance(module, nn.Conv2d) or type(module).__name__ == "LayerNorm2d"
        shape = (-1, 1, 1) if first else (-1,)

        def affine(_m: Any, _a: Any, y: Tensor, g: Any = gamma, b: Any = beta, s: Any = shape) -> Tensor:
            return y * g.view(s) + b.view(s)

        module.register_forward_hook(affine)
    x, weight = images(torch.float64), torch.randn(3, 3, dtype=torch.float64)
    y, want = adapted.model(x), plain(x)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-11)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    for key, delta in deltas(adapted).items():
        assert delta.beta is not None
        for mine, other in ((delta.gamma.grad, own[key][0].grad), (delta.beta.grad, own[key][1].grad)):
            assert mine is not None and other is not None and mine.any(), key
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", list(MODELS))
def test_ones_and_zeros_are_the_base_bit_for_bit(name: str) -> None:
    model, x = small(name), images()
    before = model(x)
    adapted = attached(model, init="identity")
    assert torch.equal(adapted.model(x), before)


def test_the_official_start_is_near_the_base_and_not_the_base() -> None:
    pytest.importorskip("timm")
    from peftx_vision.models.vit_micro import build_vit_micro

    model = build_vit_micro(0).eval()
    x = 2 * torch.rand(8, 3, 32, 32) - 1
    with torch.no_grad():
        before = model(x)
        adapted = attached(model, also_train=[])
        after = model(x)
    gammas = torch.cat([delta.gamma.detach() for delta in deltas(adapted).values()])
    betas = torch.cat([delta.beta.detach() for delta in deltas(adapted).values() if delta.beta is not None])
    assert len(gammas) == len(betas) > 5_000
    assert float(gammas.mean()) == pytest.approx(1, abs=1.5e-3)
    assert float(betas.mean()) == pytest.approx(0, abs=1.5e-3)
    assert float(gammas.std()) == pytest.approx(0.02, rel=0.05)
    assert float(betas.std()) == pytest.approx(0.02, rel=0.05)
    apart = float((after - before).square().mean().sqrt() / before.square().mean().sqrt())
    assert 0.02 < apart < 0.2, apart


@pytest.mark.parametrize("name", list(MODELS))
def test_merged_is_unmerged_with_the_keys_of_the_base(name: str) -> None:
    base, x = small(name), images()
    shapes = {key: value.shape for key, value in base.state_dict().items()}
    adapted = attached(base, spread=0.3)
    with torch.no_grad():
        y = adapted.model(x)
        artifacts.merge(adapted, probe=x)
        assert {key: value.shape for key, value in base.state_dict().items()} == shapes
        assert not any(isinstance(module, SSFDelta) for module in base.modules())
        assert (base(x) - y).abs().max() <= 1e-5 * max(1.0, float(y.abs().max()))
        fresh = small(name)
        fresh.load_state_dict(base.state_dict())
        assert torch.equal(fresh(x), base(x))
    with pytest.raises(PeftxError):
        artifacts.merge(adapted)


def test_taken_out_of_the_weights_the_base_is_what_it_was() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    adapted = attached(model)
    with torch.no_grad():  # dividing by this could not bring the weights back
        for delta in deltas(adapted).values():
            delta.gamma[::2] = 0.0
    y = adapted.model(images())
    artifacts.fuse(adapted)
    torch.testing.assert_close(adapted.model(images()), y, rtol=1e-5, atol=1e-5)
    adapted.detach()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_pair_acts_before_the_activation() -> None:
    adapted = attached(small())
    seen: list[Tensor] = []
    adapted.model.get_submodule("blocks.1.mlp.fc2").register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    with torch.no_grad():
        beta = deltas(adapted)["blocks.1.mlp.fc1"].beta
        assert beta is not None
        beta.fill_(-100.0)
        adapted.model(images())
    assert not seen[0].any()


def test_shifts_alone_learn_as_biases_do() -> None:
    """Without gamma, and at gamma 1, beta is BitFit's change of the bias; after norms, SSF tunes their affine step."""
    model, tuned, x = small(), small(), images()
    bits = peftx.attach(copy.deepcopy(model), "core.bitfit", also_train=[])
    adapted = attached(model, init="identity", also_train=[])
    for each in (bits.model, model, tuned):
        each(x).square().sum().backward()
    for key, delta in deltas(adapted).items():
        assert delta.beta is not None and delta.beta.grad is not None
        other = bits.tensors()[f"{key}.bias", "value"].grad
        assert other is not None
        torch.testing.assert_close(delta.beta.grad, other, rtol=1e-4, atol=1e-4, msg=key)
    for key in ("norm", *(f"blocks.{i}.norm{j}" for i in (0, 1) for j in (1, 2))):
        norm = tuned.get_submodule(key)
        weight, bias = norm.get_parameter("weight"), norm.get_parameter("bias")
        assert weight.grad is not None and bias.grad is not None
        want = weight.grad * weight.detach() + bias.grad * bias.detach()
        torch.testing.assert_close(deltas(adapted)[key].gamma.grad, want, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize("groups", [1, 3])
def test_channels_of_a_convolution_are_told_by_its_axis_not_by_a_size(groups: int) -> None:
    conv = nn.Conv2d(3, 6, 3, stride=1, padding=2, dilation=2, groups=groups)
    x = torch.randn(2, 3, 6, 6)  # six channels, six rows and six columns come out
    y = conv(x).detach()
    adapted = attached(nn.Sequential(conv), spread=0.5, targets=["0"], also_train=[])
    (delta,) = deltas(adapted).values()
    assert delta.beta is not None
    want = y * delta.gamma[None, :, None, None] + delta.beta[None, :, None, None]
    torch.testing.assert_close(adapted.model(x), want, rtol=0, atol=1e-6)
    weight, bias = adapted.model[0].weight, adapted.model[0].bias
    torch.testing.assert_close(
        F.conv2d(x, weight, bias, padding=2, dilation=2, groups=groups), want, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)], ids=lambda norm: type(norm).__name__
)
def test_normalisations_of_images(norm: nn.Module) -> None:
    model = nn.Sequential(norm)
    nn.init.normal_(model[0].weight)  # type: ignore[arg-type]
    x = torch.randn(5, 4, 3, 3)
    y = copy.deepcopy(model)(x).detach()  # with the statistics of the batch
    adapted = attached(model, spread=0.5, also_train=[], trunk="train")
    (delta,) = deltas(adapted).values()
    assert delta.beta is not None
    want = y * delta.gamma[:, None, None] + delta.beta[:, None, None]
    torch.testing.assert_close(adapted.model(x), want, rtol=1e-5, atol=1e-5)


def test_layers_without_a_bias() -> None:
    layers = [nn.Linear(4, 6, bias=False), nn.LayerNorm(6, bias=False), nn.Linear(6, 5)]
    model = nn.Sequential(*layers)
    everything = {"targets": ["glob:*"], "also_train": []}
    assert list(deltas(attached(copy.deepcopy(model), **everything))) == ["2"]
    x = torch.randn(3, 4)
    parts = [layer(x) if index == 0 else None for index, layer in enumerate(layers)]
    assert parts[0] is not None
    adapted = attached(model, spread=0.5, without_bias="scale", **everything)
    found = deltas(adapted)
    assert adapted.counts().adapter == 6 + 6 + 2 * 5 and found["0"].beta is None and found["1"].beta is None
    hidden = parts[0].detach() * found["0"].gamma
    hidden = F.layer_norm(hidden, (6,)) * found["1"].gamma
    assert found["2"].beta is not None
    want = F.linear(hidden, layers[2]._parameters["weight"], layers[2]._parameters["bias"])
    torch.testing.assert_close(model(x), want * found["2"].gamma + found["2"].beta, rtol=1e-5, atol=1e-5)


def test_a_model_without_biases_is_refused_in_one_sentence() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    with pytest.raises(
        SelectionError, match=r"^no layer that is targeted has a bias .*\(0 has none.*to scale them only$"
    ):
        peftx.attach(model, "vision.ssf", targets=["0"], also_train=[])
    with pytest.raises(ConfigError, match="init"):
        peftx.attach(model, "vision.ssf", init="ones")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_layer_is_scaled_wide_and_rounded_once(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 16).to(dtype)
    x = torch.randn(4, 8).to(dtype)
    y = layer(x).detach()
    adapted = attached(nn.Sequential(layer), spread=0.5, targets=["0"], also_train=[])
    (delta,) = deltas(adapted).values()
    assert delta.gamma.dtype == torch.float32 and delta.beta is not None
    assert torch.equal(layer(x), (y.float() * delta.gamma + delta.beta).to(dtype))
    weight = layer._parameters["weight"]
    assert weight is not None
    assert torch.equal(adapted.model[0].weight, (weight.float() * delta.gamma[:, None]).to(dtype))


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    adapted = attached(small("convnext"), spread=0.3)
    y = adapted.model(images())
    artifacts.save(adapted, tmp_path / "a")
    assert torch.equal(artifacts.load(small("convnext"), tmp_path / "a").model(images()), y)
