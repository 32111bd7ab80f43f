"""Which models take prompts, how many values that is, and how these start."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import peftx
from peftx.errors import ConfigError, SelectionError
from peftx_vision.methods.vpt import PromptInsert

SHALLOW, DEEP = METHODS = ["vision.vpt_shallow", "vision.vpt_deep"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def inserts(adapted: Any) -> list[PromptInsert]:
    """In the order of the blocks."""
    return [module for module in adapted.model.modules() if isinstance(module, PromptInsert)]


def prompts(adapted: Any) -> list[Tensor]:
    return [insert.prompts for insert in inserts(adapted) if insert.prompts is not None]


@pytest.mark.parametrize(("count", "shallow", "deep"), [(50, 38_400, 460_800), (10, 7_680, 92_160)])
def test_counts_on_vit_b(count: int, shallow: int, deep: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        base = timm.create_model("vit_base_patch16_224", num_classes=100)
    for method, want in ((SHALLOW, shallow), (DEEP, deep)):
        adapted = peftx.attach(copy.deepcopy(base), method, prompts=count)
        counts = adapted.counts()
        assert (counts.adapter, counts.trainable) == (want, want + 76_900)
        assert sum(rows.numel() for rows in prompts(adapted)) == want
        assert {rows.shape for rows in prompts(adapted)} == {(count, 768)}
        assert len(inserts(adapted)) == (12 if method == DEEP else 2)
        assert peftx.explain(base, method, prompts=count, project=32).counts.adapter == (
            count * 32 * (12 if method == DEEP else 1) + 32 * 768 + 768
        )


def test_what_fifty_prompts_cost() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.models.VisionTransformer(depth=1, num_classes=0)
        x = torch.empty(1, 197, 768)
    flops = []
    for adapt in (False, True):
        if adapt:
            peftx.attach(model, DEEP, prompts=50)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.blocks(x)
        flops.append(counter.get_total_flops())
    assert flops[1] / flops[0] - 1 == pytest.approx(0.267, abs=5e-4)


def test_how_prompts_start() -> None:
    timm = pytest.importorskip("timm")
    model = timm.models.VisionTransformer(depth=2, num_classes=3)
    for method in METHODS:
        for rows in prompts(peftx.attach(copy.deepcopy(model), method, prompts=50)):
            assert 0.0625 * 0.99 < float(rows.detach().abs().max()) <= 0.0625  # sqrt(6 / (3 16 16 + 768))
            assert float(rows.detach().std()) == pytest.approx(0.0625 / 3**0.5, rel=0.02)
    adapted = peftx.attach(model, DEEP, prompts=50, project=256)
    for rows in prompts(adapted):
        assert rows.shape == (50, 256)
        assert float(rows.detach().abs().max()) == pytest.approx((6 / (768 + 256)) ** 0.5, rel=0.01)
    bank: Any = inserts(adapted)[0].bank
    assert float(bank.weight.detach().std()) == pytest.approx((2 / 768) ** 0.5, rel=0.02)  # kaiming, fan out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"]
)
def test_blocks_that_take_no_more_tokens_are_refused(method: str, name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(
        SelectionError, match=r"^prompts need blocks .* ViT or DeiT; .* is not known to be one$"
    ):
        peftx.attach(model, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_attention_is_refused(method: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        models = [timm.create_model(name) for name in ("convnext_tiny", "resnet18")]
    for model in models:
        with pytest.raises(SelectionError) as refusal:
            peftx.attach(model, method)
        assert "\n" not in str(refusal.value)


def test_shallow_prompts_run_through_one_stack() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        pit = timm.create_model("pit_ti_224")
    with pytest.raises(
        SelectionError, match=r"blocks of one stack, and these are of transformers\.0\.blocks and"
    ):
        peftx.attach(pit, SHALLOW)
    with pytest.raises(ConfigError, match="one projection cannot serve blocks of widths 64, 128, 256"):
        peftx.attach(pit, DEEP, project=8)
    assert peftx.explain(pit, DEEP, prompts=2, also_train=[]).counts.trainable == 2 * (
        2 * 64 + 6 * 128 + 4 * 256
    )


@pytest.mark.parametrize("method", METHODS)
def test_torchvision(method: str) -> None:
    tv = pytest.importorskip("torchvision")
    shape = {
        "image_size": 16,
        "patch_size": 4,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 12,
        "mlp_dim": 24,
    }
    model = tv.models.VisionTransformer(**shape, num_classes=3).double().eval()
    nn.init.normal_(model.heads.head.weight)
    plain = copy.deepcopy(model)
    adapted = peftx.attach(model, method, prompts=4, also_train=[])
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    z = plain._process_input(x)
    z = torch.cat((plain.class_token.expand(3, -1, -1), z), 1) + plain.encoder.pos_embedding
    for place, layer in enumerate(plain.encoder.layers):
        rows = prompts(adapted)[place if method == DEEP else 0].expand(3, -1, -1)
        z = (
            layer(torch.cat((z, rows), 1))[:, :17]
            if method == DEEP
            else layer(torch.cat((z, rows), 1) if not place else z)
        )
    torch.testing.assert_close(adapted.model(x), plain.heads(plain.encoder.ln(z)[:, 0]), rtol=0, atol=1e-10)
