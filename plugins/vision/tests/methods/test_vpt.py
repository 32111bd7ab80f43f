from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import peftx
from peftx import artifacts
from peftx.errors import AdapterError, ArtifactError
from peftx_vision.methods.vpt import PromptInsert

SHALLOW, DEEP = METHODS = ["vision.vpt_shallow", "vision.vpt_deep"]
SMALL: dict[str, Any] = {"embed_dim": 24, "num_heads": 2, "img_size": 16, "patch_size": 4, "num_classes": 3}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def vit(dtype: torch.dtype = torch.float32, depth: int = 3, **options: Any) -> Any:
    """A small ViT of timm none of whose values rests at zero or one."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    cls = timm.models.deit.VisionTransformerDistilled if options.pop("distilled", False) else None
    model = (cls or timm.models.VisionTransformer)(**{**SMALL, "depth": depth, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def images(dtype: torch.dtype = torch.float32, count: int = 3, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)


def attached(method: str, model: Any, **options: Any) -> Any:
    """An adapter whose prompts are large enough to see."""
    adapted = peftx.attach(model, method, **{"prompts": 4, **options})
    with torch.no_grad():
        for insert in inserts(adapted):
            if insert.prompts is not None:
                insert.prompts.mul_(5.0)
    return adapted


def inserts(adapted: Any) -> list[PromptInsert]:
    """In the order of the blocks."""
    return [module for module in adapted.model.modules() if isinstance(module, PromptInsert)]


def prompts(adapted: Any) -> list[Tensor]:
    return [insert.prompts for insert in inserts(adapted) if insert.prompts is not None]


def official(model: Any, rows: list[Tensor], x: Tensor) -> Tensor:
    """VPT as the paper has it: rows 1 .. p of the sequence are prompts, and are replaced before every block (deep)."""
    z = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    count = rows[0].shape[0]
    for place, block in enumerate(model.blocks):
        if place == 0:
            z = torch.cat((z[:, :1], rows[0].expand(len(x), -1, -1), z[:, 1:]), 1)
        elif len(rows) > 1:
            z = torch.cat((z[:, :1], rows[place].expand(len(x), -1, -1), z[:, 1 + count :]), 1)
        z = block(z)
    # what is pooled is the base's tokens
    z = model.norm(torch.cat((z[:, :1], z[:, 1 + count :]), 1))
    return model.forward_head(z)  # type: ignore[no-any-return]


POOLS = {
    "cls": {},
    "avg": {"global_pool": "avg"},
    "avg_without_cls": {"global_pool": "avg", "class_token": False},
    "avg_of_all": {"global_pool": "avgmax"},
    "registers": {"reg_tokens": 2},
    "map": {"global_pool": "map", "class_token": False},
    "distilled": {"distilled": True},
    "no_embed_class": {"no_embed_class": True, "init_values": 0.5},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", list(POOLS))
def test_values_and_gradients_are_those_of_the_written_form(method: str, pool: str) -> None:
    adapted = attached(method, vit(torch.float64, **POOLS[pool]), also_train=[])
    plain = vit(torch.float64, **POOLS[pool]).requires_grad_(False)
    own = [rows.detach().clone().requires_grad_() for rows in prompts(adapted)]
    assert len(own) == (1 if method == SHALLOW else 3)
    x = images(torch.float64)
    y, want = adapted.model(x), official(plain, own, x)
    torch.testing.assert_close(y, want, rtol=0, atol=1e-10)
    assert (y - plain(x)).abs().max() > 1e-2
    weight = torch.randn_like(want)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    for mine, other in zip(prompts(adapted), own, strict=True):
        assert mine.grad is not None and other.grad is not None and other.grad.any()
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_no_prompts_are_the_linear_probe(method: str, tmp_path: Path) -> None:
    model, x = vit(), images()
    before = model(x)
    adapted = peftx.attach(model, method, prompts=0)
    assert torch.equal(adapted.model(x), before)
    assert adapted.counts().adapter == 0 and adapted.counts().trainable == 25 * 3
    probe = peftx.attach(vit(), "core.head")
    for each in (adapted, probe):
        each.model(x).square().sum().backward()
    heads = [[(key, p.grad) for key, p in each.named_parameters() if p.numel()] for each in (adapted, probe)]
    assert len(heads[0]) == len(heads[1]) == 2
    for (_, mine), (_, other) in zip(sorted(heads[0]), sorted(heads[1]), strict=True):
        assert mine is not None and other is not None and torch.equal(mine, other)
    artifacts.save(adapted, tmp_path / "a")
    assert torch.equal(artifacts.load(vit(), tmp_path / "a").model(x), before)


@pytest.mark.parametrize("method", METHODS)
def test_prompts_and_head_alone_learn_from_the_first_step(method: str) -> None:
    adapted = attached(method, vit())
    base = {key: value for key, value in adapted.model.named_parameters() if "peftx" not in key}
    adapted.model.train()(images()).square().sum().backward()
    assert all(value.grad is None for value in base.values())
    grads = [rows.grad for rows in prompts(adapted)]
    # the last block's prompts act on the class token that is read
    assert all(grad is not None and grad.abs().sum(1).min() > 0 for grad in grads)
    assert len(list(adapted.parameters())) == len(grads) + 2


def test_what_a_block_makes_of_deep_prompts_is_dropped() -> None:
    """Moving the prompts' rows behind a block changes nothing; shallow, they are what the next block sees."""
    for method, stays in ((DEEP, True), (SHALLOW, False)):
        adapted = attached(method, vit())
        x = images()
        before = adapted.model(x)
        mlp = adapted.model.get_submodule("blocks.1.mlp")
        own = slice(17, 21) if stays else slice(1, 5)
        for rows, same in ((own, stays), (slice(7, 8), False)):

            def move(_m: Any, _a: Any, y: Tensor, rows: slice = rows) -> Tensor:
                y = y.clone()
                y[:, rows] += 3.0
                return y

            hook = mlp.register_forward_hook(move)
            moved = adapted.model(x)
            hook.remove()
            assert torch.equal(moved, before) is same


def test_deep_prompts_are_fixed_keys_and_values() -> None:
    """Of a block's prompts only keys and values matter: prefix tuning with constants K and V for each block."""
    adapted = attached(DEEP, vit(torch.float64), also_train=[])
    plain, x = vit(torch.float64), images(torch.float64)
    z = plain._pos_embed(plain.patch_embed(x))
    for block, rows in zip(plain.blocks, prompts(adapted), strict=True):
        attn, heads = block.attn, block.attn.num_heads
        u, fixed = block.norm1(z), block.norm1(rows)
        q, k, v = attn.qkv(u).chunk(3, -1)
        _, key, value = attn.qkv(fixed).chunk(3, -1)
        k = torch.cat((key.expand(len(x), -1, -1), k), 1)
        v = torch.cat((value.expand(len(x), -1, -1), v), 1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(-2, -1) * attn.scale).softmax(-1)
        z = z + attn.proj((scores @ v).transpose(1, 2).flatten(2))
        z = z + block.mlp(block.norm2(z))
    torch.testing.assert_close(adapted.model(x), plain.forward_head(plain.norm(z)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_prompts_does_not_matter(method: str) -> None:
    adapted = attached(method, vit(torch.float64))
    x = images(torch.float64)
    before = adapted.model(x)
    with torch.no_grad():
        for rows in prompts(adapted):
            rows.copy_(rows[torch.randperm(len(rows))])
    torch.testing.assert_close(adapted.model(x), before, rtol=0, atol=1e-10)


def test_in_a_network_of_one_block_shallow_is_deep() -> None:
    both = [attached(method, vit(depth=1)) for method in METHODS]
    with torch.no_grad():
        prompts(both[1])[0].copy_(prompts(both[0])[0])
    assert torch.equal(*(adapted.model(images()) for adapted in both))


def test_prompts_that_nobody_sees_leave_the_block_as_it_was() -> None:
    """Scores of minus infinity for the prompts' keys: what stays where is then all that could differ."""
    model = vit(torch.float64)
    (first, *_) = inserts(attached(DEEP, model))
    block, z = vit(torch.float64).blocks[0], torch.randn(2, 17, 24, dtype=torch.float64)
    mask = torch.zeros(21, 21, dtype=torch.float64)
    mask[:, 17:] = float("-inf")
    torch.testing.assert_close(first.around(partial(block, attn_mask=mask), z), block(z), rtol=0, atol=1e-12)
    mask = mask.roll(-1, 1)  # one prompt is seen, one token is not
    assert (first.around(partial(block, attn_mask=mask), z) - block(z)).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_another_resolution_concerns_the_image_alone(method: str) -> None:
    options = {"dynamic_img_size": True}
    adapted = attached(method, vit(torch.float64, **options), also_train=[])
    x = images(torch.float64, size=24)
    want = official(vit(torch.float64, **options), prompts(adapted), x)
    torch.testing.assert_close(adapted.model(x), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_projection_is_shared_by_all_blocks(method: str) -> None:
    adapted = attached(method, vit(torch.float64), project=6)
    banks = {id(insert.bank) for insert in inserts(adapted)}
    assert len(banks) == 1
    bank: Any = inserts(adapted)[0].bank
    x = images(torch.float64)
    rows = [raw @ bank.weight.t() + bank.bias for raw in prompts(adapted)]
    torch.testing.assert_close(adapted.model(x), official(vit(torch.float64), rows, x), rtol=0, atol=1e-10)
    learned = [*prompts(adapted), bank.weight, bank.bias]
    grads = torch.autograd.grad(adapted.model(x).square().sum(), learned)
    rows = [raw @ bank.weight.t() + bank.bias for raw in prompts(adapted)]
    want = torch.autograd.grad(official(vit(torch.float64), rows, x).square().sum(), learned)
    for mine, other in zip(grads, want, strict=True):
        assert other.any()
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


def test_dropout_is_drawn_for_each_image_and_only_in_training() -> None:
    adapted = attached(SHALLOW, vit(), dropout=0.5)
    seen: list[Tensor] = []
    adapted.model.get_submodule("blocks.0.norm1").register_forward_pre_hook(
        lambda m, a: seen.append(a[0][:, 1:5])
    )
    (rows,) = prompts(adapted)
    with torch.no_grad():
        adapted.model.eval()(images())
        adapted.model.train()(images())
    assert torch.equal(seen[0], rows.expand(3, -1, -1))
    kept = seen[1] != 0
    assert torch.equal(seen[1], torch.where(kept, 2 * rows, torch.zeros(())))
    assert not torch.equal(kept[0], kept[1]) and 0.3 < float(kept.float().mean()) < 0.7


def test_the_trunk_is_in_evaluation_mode_while_prompts_train() -> None:
    model = vit(proj_drop_rate=0.5, drop_path_rate=0.5)
    adapted = attached(DEEP, model)
    assert torch.equal(adapted.model.train()(images()), adapted.model.eval()(images()))
    free = attached(DEEP, vit(proj_drop_rate=0.5), trunk="train").model.train()
    assert not torch.equal(free(images()), free(images()))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method: str) -> None:
    adapted = attached(method, vit(torch.bfloat16))
    assert {rows.dtype for rows in prompts(adapted)} == {torch.float32}
    y = adapted.model(images(torch.bfloat16))
    want = official(
        vit(torch.bfloat16).float(), [rows.bfloat16().float() for rows in prompts(adapted)], images()
    )
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), want, rtol=0, atol=0.05 * float(want.detach().abs().max()))


@pytest.mark.parametrize("order", [("shallow", "deep"), ("deep", "shallow")])
def test_two_adapters_at_once_and_checkpointed_blocks(order: tuple[str, str]) -> None:
    """A deep and a shallow adapter together are one sequence with the prompts of both, whichever is the inner one."""
    adapted = attached(SHALLOW, vit(torch.float64), name="shallow", also_train=[])
    adapted.attach(DEEP, name="deep", prompts=2, also_train=[])
    adapted.activate(*order)
    x, plain = images(torch.float64), vit(torch.float64)
    found = [insert.prompts for insert in inserts(adapted) if insert.prompts is not None]
    (travels,) = (rows for rows in found if len(rows) == 4)
    z = plain._pos_embed(plain.patch_embed(x))
    z = torch.cat((travels.expand(3, -1, -1), z), 1)
    for block, rows in zip(plain.blocks, [rows for rows in found if len(rows) == 2], strict=True):
        z = block(torch.cat((rows.expand(3, -1, -1), z), 1))[:, 2:]
    y = adapted.model(x)
    torch.testing.assert_close(y, plain.forward_head(plain.norm(z[:, 4:])), rtol=0, atol=1e-10)
    grads = torch.autograd.grad(y.square().sum(), list(adapted.parameters()))
    adapted.model.set_grad_checkpointing(True)
    again = torch.autograd.grad(adapted.model(x).square().sum(), list(adapted.parameters()))
    for one, other in zip(grads, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_outputs_of_blocks_hold_the_tokens_of_the_image_alone() -> None:
    adapted = attached(DEEP, vit(torch.float64))
    adapted.model(images(torch.float64))
    final, maps = adapted.model.forward_intermediates(images(torch.float64))
    assert final.shape == (3, 17, 24) and [m.shape for m in maps] == [(3, 24, 4, 4)] * 3


def test_a_mask_has_no_place_for_prompts() -> None:
    adapted = attached(DEEP, vit())
    with pytest.raises(
        AdapterError, match=r"^blocks.0 was called with a tensor beside its tokens.*run the model without"
    ):
        adapted.model(images(), attn_mask=torch.zeros(17, 17))


@pytest.mark.parametrize("method", METHODS)
def test_prompts_are_no_weights(method: str, tmp_path: Path) -> None:
    adapted = attached(method, vit(), project=6)
    y = adapted.model(images())
    with pytest.raises(ArtifactError, match="cannot be merged"):
        artifacts.merge(adapted)
    artifacts.save(adapted, tmp_path / "a")
    assert torch.equal(artifacts.load(vit(), tmp_path / "a").model(images()), y)
