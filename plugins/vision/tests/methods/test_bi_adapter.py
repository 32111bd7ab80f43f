from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError, ConfigError, SelectionError
from peftx_vision.methods.bi_adapter import BiAdaptFormerInsert, BiLoRADelta

Small = Callable[..., nn.Module]
Images = Callable[..., Tensor]
METHODS = ("vision.bi_adaptformer", "vision.bi_lora")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def attached(model: nn.Module, method: str = METHODS[0], spread: float = 0.0, **options: Any) -> Any:
    adapted = peftx.attach(model, method, **options)
    with torch.no_grad():
        for delta in deltas(adapted).values():
            for parameter in delta.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
    return adapted


def deltas(adapted: Any) -> dict[str, Any]:
    kinds = (BiAdaptFormerInsert, BiLoRADelta)
    return {m.site.key: m for m in adapted.model.modules() if isinstance(m, kinds)}


class SignOfWeight(torch.autograd.Function):
    """The official one-bit code: sign, straight through."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return 0.6744897501960817 * z.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


def plainly(weight: Tensor) -> Tensor:
    mean, deviation = weight.mean(), weight.std()
    made: Tensor = SignOfWeight.apply((weight - mean) / (deviation + 1e-5))  # type: ignore[no-untyped-call]
    return made * deviation + mean


@pytest.mark.parametrize("name", ["vit_scaled", "deit", "swin"])
@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients_are_those_of_the_official_layer(
    method: str, name: str, small: Small, images: Images
) -> None:
    plain = small(name, torch.float64).requires_grad_(False)
    adapted = attached(small(name, torch.float64), method, spread=0.3, width=5, scale=0.7)
    own: list[tuple[Tensor, Tensor]] = []
    for key, delta in deltas(adapted).items():
        down, up = (p.detach().clone().requires_grad_() for p in (delta.down, delta.up))
        own += [(delta.down, down), (delta.up, up)]
        if method == METHODS[1]:
            layer: Any = plain.get_submodule(delta.site.module)
            rows = slice(*delta.site.rows)

            def beside(_m: Any, args: Any, y: Tensor, d: Any = down, u: Any = up, at: Any = rows) -> Tensor:
                y = y.clone()
                y[..., at] += 0.7 * F.linear(F.linear(args[0], plainly(d)), plainly(u))
                return y

            layer.register_forward_hook(beside)
            continue
        block: Any = plain.get_submodule(key)
        seen: list[Tensor] = []
        block.norm2.register_forward_pre_hook(lambda m, a, s=seen: s.append(a[0]))

        def behind(_m: Any, _a: Any, y: Tensor, d: Any = down, u: Any = up, s: Any = seen) -> Tensor:
            added = F.linear(F.linear(s.pop(), plainly(d)).relu(), plainly(u))
            return y + 0.7 * added.view_as(y)

        block.register_forward_hook(behind)
    x, weight = images(torch.float64), torch.randn(3, 3, dtype=torch.float64)
    y, want = adapted.model(x), plain(x)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-9)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    for mine, theirs in own:
        assert mine.grad is not None and mine.grad.any()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-7, atol=1e-9)


def test_where_bi_lora_goes(small: Small) -> None:
    found = deltas(attached(small(), METHODS[1]))
    assert sorted(found) == [f"blocks.{i}.attn.qkv[{part}]" for i in range(3) for part in "qv"]


@pytest.mark.parametrize("method", METHODS)
def test_the_start_is_near_the_base_and_of_32_bits_the_base(
    method: str, small: Small, images: Images
) -> None:
    model, x = small(), images()
    before = model(x)
    adapted = attached(model, method)
    apart = float(((model(x) - before).norm() / before.norm()).detach())
    assert 0 < apart < 1e-2
    delta = next(iter(deltas(adapted).values()))
    assert float(delta.up.detach().abs().max()) <= 2e-3 and float(delta.up.detach().std()) > 7e-4
    assert float(delta.down.detach().abs().max()) <= 24**-0.5
    adapted.detach()
    whole = attached(model, method, bits=32)
    assert not any(delta.up.any() for delta in deltas(whole).values())
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_map_acts_in_as_many_values_as_its_bits_allow(bits: int, small: Small) -> None:
    for delta in deltas(attached(small(), spread=0.2, bits=bits)).values():
        assert all(len(w.unique()) == 2**bits for w in delta.maps())
    for delta in deltas(attached(small(), spread=0.2, bits=32)).values():
        assert delta.maps() == (delta.down, delta.up)


def test_bi_lora_merges_exactly(small: Small, images: Images) -> None:
    model, x = small(), images()
    adapted = attached(model, METHODS[1], spread=0.2)
    with torch.no_grad():
        y = model(x)
        artifacts.merge(adapted, probe=x)
        torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArtifactError, match="cannot be merged"):
        artifacts.merge(attached(small()))


@pytest.mark.parametrize(
    ("method", "options", "adapter"),
    [
        (METHODS[0], {}, 589_824),
        (METHODS[0], {"width": 1}, 18_432),
        (METHODS[1], {}, 12 * 2 * 32 * 2 * 768),
    ],
)
def test_counts(method: str, options: dict[str, Any], adapter: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=100)
    counts = peftx.attach(model, method, **options).counts()
    assert (counts.adapter, counts.trainable) == (adapter, adapter + 76_900)


def test_what_cannot_work_is_refused_in_one_sentence(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"^head_bits = 1 .* owns no head; .* leave head_bits at 32$"):
        attached(small(), head_bits=1, also_train=[])
    with pytest.raises(ConfigError, match=r"owns only head.bias; name the whole head"):
        attached(small(), head_bits=1, also_train=["head.bias"])
    with pytest.raises(SelectionError, match=r"\(ConvNeXtBlock\) has no norm .*; use vision.adaptertune$"):
        attached(small("convnext"))
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    with pytest.raises(ConfigError, match=r"^dropout 0.1 cannot act on .* exclude the site$"):
        attached(encoder, METHODS[1], dropout=0.1, also_train=[])
    with pytest.raises(ConfigError, match="bits"):
        attached(small(), bits=3)
