"""The batch norm that AdaptFormer's official code has in front of the classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import ArtifactError, SelectionError
from peftx_vision.methods.head_norm import HeadNorm

Small = Callable[..., nn.Module]
Images = Callable[..., Tensor]


def attached(model: nn.Module, **options: Any) -> Any:
    torch.manual_seed(0)
    adapted = peftx.attach(model, "vision.adaptformer", **{"head_norm": "batch", "dropout": 0.0} | options)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return adapted


def norms(model: nn.Module) -> dict[str, HeadNorm]:
    return {module.site.key: module for module in model.modules() if isinstance(module, HeadNorm)}


@pytest.mark.parametrize("name", ["vit", "deit", "swin"])
def test_it_is_a_batch_norm_of_torch_in_front_of_the_head(name: str, small: Small, images: Images) -> None:
    """Values, gradients and running statistics, in training and in evaluation."""
    plain = attached(small(name, torch.float64), head_norm="none").model
    adapted = attached(small(name, torch.float64))
    heads = {"deit": ["head", "head_dist"], "swin": ["head.fc"]}.get(name, ["head"])
    assert sorted(norms(adapted.model)) == heads
    own = {
        key: nn.BatchNorm1d(norms(adapted.model)[key].site.shape[0], affine=False, eps=1e-6) for key in heads
    }
    for key, norm in own.items():
        norm.double().train()
        plain.get_submodule(key).register_forward_pre_hook(lambda m, a, n=norm: (n(a[0]),))
    adapted.model.train()
    plain.train()
    for seed in range(3):
        x = images(torch.float64) + seed
        # two heads are averaged in evaluation only
        y, want = (torch.cat([o] if isinstance(o, Tensor) else list(o)) for o in (adapted.model(x), plain(x)))
        torch.testing.assert_close(y, want, rtol=0, atol=1e-10)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    theirs = dict(peftx.adapted(plain).named_parameters())
    for key, parameter in adapted.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[key].grad, rtol=1e-8, atol=1e-10)
    for key, norm in own.items():
        mine = norms(adapted.model)[key].norm
        torch.testing.assert_close(mine.running_mean, norm.running_mean)
        torch.testing.assert_close(mine.running_var, norm.running_var)
        assert int(mine.num_batches_tracked) == 3  # type: ignore[arg-type]
        norm.eval()
    plain.eval()
    torch.testing.assert_close(adapted.model.eval()(x), plain(x), rtol=0, atol=1e-10)


def test_its_statistics_are_the_adapters_and_without_them_the_outputs_differ(
    small: Small, images: Images, tmp_path: Path
) -> None:
    model = small()
    before, base = {k: v.clone() for k, v in model.state_dict().items()}, model(images())
    adapted = attached(model)
    counts = adapted.counts()
    promised = peftx.explain(small(), "vision.adaptformer", head_norm="batch").counts
    assert counts == promised
    assert counts.stored_bytes == 4 * counts.trainable + 2 * 4 * 24 + 8
    assert counts.trainable == attached(small(), head_norm="none").counts().trainable, "it trains nothing"
    for _ in range(3):
        adapted.model.train()(images())
    y = adapted.model.eval()(images())
    folder = artifacts.save(adapted, tmp_path / "a")
    loaded = artifacts.load(small(), folder)
    assert torch.equal(loaded.model(images()), y)
    slots = sorted(slot for site, slot in loaded.tensors() if site == "head")
    assert slots == ["norm.num_batches_tracked", "norm.running_mean", "norm.running_var"]
    norms(loaded.model)["head"].norm.reset_running_stats()
    assert not torch.allclose(loaded.model(images()), y, atol=0.05)
    with pytest.raises(ArtifactError, match="cannot be merged"):
        artifacts.merge(adapted)
    with adapted.disabled():
        assert torch.equal(model(images()), base)
    adapted.detach()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(images()), base)


def test_it_starts_as_the_base_but_for_rounding(small: Small, images: Images) -> None:
    model = small()
    base = model(images())
    peftx.attach(model, "vision.adaptformer", head_norm="batch")
    torch.testing.assert_close(model(images()), base, rtol=1e-5, atol=1e-5)


def test_a_batch_of_one_sample_has_no_deviation(small: Small, images: Images) -> None:
    adapted = attached(small())
    norm = norms(adapted.model)["head"].norm
    adapted.model.train()(images())
    before = norm.running_mean.clone(), int(norm.num_batches_tracked)  # type: ignore[union-attr, arg-type]
    alone = adapted.model(images()[:1])
    assert torch.equal(norm.running_mean, before[0]) and int(norm.num_batches_tracked) == before[1]  # type: ignore[arg-type]
    torch.testing.assert_close(alone, adapted.model.eval()(images()[:1]))


def test_in_half_precision_the_statistics_are_float32(small: Small, images: Images) -> None:
    adapted = attached(small("vit", torch.bfloat16))
    y = adapted.model.train()(images(torch.bfloat16))
    norm = norms(adapted.model)["head"].norm
    assert y.dtype == torch.bfloat16 and norm.running_var.dtype == torch.float32  # type: ignore[union-attr]


def test_two_adapters_have_statistics_of_their_own(small: Small, images: Images) -> None:
    adapted = attached(small(), name="a")
    adapted.model.train()(images())
    y = adapted.model.eval()(images())
    adapted.attach("vision.adaptformer", name="b", head_norm="batch")
    adapted.model.train()(images() + 3)
    adapted.activate("a")
    assert torch.equal(adapted.model.eval()(images()), y)
    with adapted.per_sample(["a", "b", "a"]):
        torch.testing.assert_close(adapted.model(images())[[0, 2]], y[[0, 2]])


def test_a_head_it_cannot_stand_in_front_of_is_refused_in_one_sentence(small: Small) -> None:
    model: Any = small()
    model.reset_classifier(0)
    with pytest.raises(SelectionError, match=r"has no head, .* or build the model with classes$"):
        attached(model)
    model = small()
    model.head = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(
        SelectionError, match=r"^the head head has 2 layers, and a batch norm is put in front of one"
    ):
        attached(model)
    model.head = nn.Conv1d(24, 3, 1)
    with pytest.raises(SelectionError, match=r"^the head head is a Conv1d, and"):
        attached(model)
