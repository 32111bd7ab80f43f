"""What an adapter of few bits is in a folder, what a head of few bits is, and what goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load as read
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.artifacts.state import load_state, save_state
from peftx.errors import ArtifactError
from peftx.training.ema import Ema
from peftx_vision.methods.low_bits import codes, packed, quantised

Small = Callable[..., nn.Module]
Images = Callable[..., Tensor]
ADAPTFORMER, LORA = METHODS = ("vision.bi_adaptformer", "vision.bi_lora")
HEADS = ({}, {"head_bits": 1}, {"bits": 2, "head_bits": 4}, {"bits": 4}, {"bits": 32, "head_bits": 2})


def trained(model: nn.Module, method: str = ADAPTFORMER, name: str = "default", **options: Any) -> Any:
    adapted = peftx.attach(model, method, name=name, **options)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return adapted


def payload(folder: Path) -> dict[str, Tensor]:
    return read((folder / "adapter.safetensors").read_bytes())


def vit_base(classes: int = 100) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model: nn.Module = timm.create_model("vit_base_patch16_224", num_classes=classes)
    return model


@pytest.mark.parametrize(
    ("method", "options", "size"),
    [
        (ADAPTFORMER, {"also_train": []}, 73_920),
        (ADAPTFORMER, {}, 381_520),
        (ADAPTFORMER, {"head_bits": 1}, 83_528),
        (ADAPTFORMER, {"bits": 2, "also_train": []}, 24 * (32 * 768 // 4 + 8)),
        (ADAPTFORMER, {"bits": 4, "also_train": []}, 24 * (32 * 768 // 2 + 8)),
        (ADAPTFORMER, {"bits": 32}, 4 * (589_824 + 76_900)),
        (LORA, {"also_train": []}, 48 * (32 * 768 // 8 + 8)),
        (LORA, {"head_bits": 1}, 48 * (32 * 768 // 8 + 8) + 9_608),
    ],
)
def test_the_sizes_of_the_card(method: str, options: dict[str, Any], size: int) -> None:
    model = vit_base()
    assert peftx.explain(model, method, **options).counts.stored_bytes == size
    assert peftx.attach(model, method, **options).counts().stored_bytes == size


@pytest.mark.parametrize(("options", "size"), [({}, 381_520), ({"head_bits": 1}, 83_528)])
def test_the_files_have_the_sizes_of_the_card(options: dict[str, Any], size: int, tmp_path: Path) -> None:
    model = vit_base().to_empty(device="cpu")
    nn.init.normal_(model.get_parameter("head.weight"))
    folder = artifacts.save(peftx.attach(model, ADAPTFORMER, **options), tmp_path / "a")
    tensors = payload(folder)
    assert sum(tensor.nbytes for tensor in tensors.values()) == size
    assert tensors["blocks.0::down.codes"].shape == (3_072,)
    assert tensors["blocks.0::down.statistics"].nbytes == 8
    assert (folder / "adapter.safetensors").stat().st_size < size + 32_768, "the header, beside the tensors"


@pytest.mark.parametrize(
    ("method", "width", "head_bits", "kib"),
    [
        (ADAPTFORMER, 32, 32, 212.9),
        (ADAPTFORMER, 32, 1, 76.6),
        (ADAPTFORMER, 1, 1, 6.8),
        (LORA, 32, 32, 285.1),
        (LORA, 32, 1, 148.8),
        (LORA, 1, 1, 9.2),
    ],
)
def test_the_published_sizes(method: str, width: int, head_bits: int, kib: float) -> None:
    """The column of the official table: KiB a task, the mean over the three groups of VTAB-1k."""
    groups = ([102, 100, 47, 102, 37, 10, 397], [2, 10, 45, 5], [8, 6, 6, 4, 16, 16, 18, 18])
    classes = sum(sum(group) / len(group) for group in groups) / 3
    one, two = (
        peftx.explain(vit_base(n), method, width=width, head_bits=head_bits).counts.stored_bytes
        for n in (8, 16)
    )
    size = one + (two - one) / 8 * (classes - 8)  # linear in the classes
    assert size / 1024 == pytest.approx(kib, abs=0.1)


@pytest.mark.parametrize("options", HEADS)
@pytest.mark.parametrize("method", METHODS)
def test_a_folder_gives_the_same_bits_and_is_written_again_the_same(
    method: str, options: dict[str, Any], small: Small, images: Images, tmp_path: Path
) -> None:
    adapted = trained(small(), method, **options)
    y = adapted.model(images())
    state = {place: tensor.detach().clone() for place, tensor in adapted.tensors().items()}
    first = artifacts.save(adapted, tmp_path / "a")
    assert all(torch.equal(tensor, state[place]) for place, tensor in adapted.tensors().items())
    assert sum(tensor.nbytes for tensor in payload(first).values()) == adapted.counts().stored_bytes
    other = small()
    with torch.no_grad():
        for name in ("head.weight", "head.bias"):
            other.get_parameter(name).normal_()  # a head of its own, which the adapter replaces
    again = artifacts.load(other, first)
    assert torch.equal(again.model(images()), y)
    assert torch.equal(again.model.train().eval()(images()), y)
    second = artifacts.save(again, tmp_path / "b")
    assert (second / "adapter.safetensors").read_bytes() == (first / "adapter.safetensors").read_bytes()
    third = artifacts.load(small(), artifacts.save(adapted, tmp_path / "c", packed=False))
    assert all(torch.equal(tensor, state[place]) for place, tensor in third.tensors().items())


def test_in_a_float64_model_mean_and_deviation_are_float64(
    small: Small, images: Images, tmp_path: Path
) -> None:
    adapted = trained(small(dtype=torch.float64))
    folder = artifacts.save(adapted, tmp_path / "a")
    assert payload(folder)["blocks.0::up.statistics"].dtype == torch.float64
    again = artifacts.load(small(dtype=torch.float64), folder)
    assert torch.equal(again.model(images(torch.float64)), adapted.model(images(torch.float64)))


@pytest.mark.parametrize("method", METHODS)
def test_on_a_bfloat16_base_and_beside_another(
    method: str, small: Small, images: Images, tmp_path: Path
) -> None:
    x, model = images(torch.bfloat16), small(dtype=torch.bfloat16)
    adapted = trained(model, method, name="a", head_bits=1)
    y = model(x)
    artifacts.save(adapted, tmp_path / "a")
    host = trained(small(dtype=torch.bfloat16), "core.lora", name="b", rank=2).model
    loaded = artifacts.load(host, tmp_path / "a")
    assert loaded.active == ("a",) and torch.equal(host(x), y)
    loaded.activate("b", "a")
    assert not torch.equal(host(x), y)
    with loaded.per_sample(["a", None, "a"]):
        mixed = host(x)
    torch.testing.assert_close(mixed[[0, 2]], y[[0, 2]], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("head", [{}, {"head_bits": 1}])
def test_what_is_made_of_a_folder_is_made_of_what_acts(
    head: dict[str, Any], small: Small, images: Images, tmp_path: Path
) -> None:
    adapted = trained(small(), LORA, **head)
    folder = artifacts.save(adapted, tmp_path / "a")
    loaded = artifacts.load(small(), folder)
    for one, name in ((adapted, "trained"), (loaded, "loaded")):
        artifacts.to_peft(one, tmp_path / "peft" / name)
    ours, theirs = (
        (tmp_path / "peft" / n / "adapter_model.safetensors").read_bytes() for n in ("trained", "loaded")
    )
    assert ours == theirs
    back = artifacts.from_peft(small(), tmp_path / "peft" / "loaded")
    y = loaded.model(images())
    torch.testing.assert_close(back.model(images()), y, rtol=1e-4, atol=1e-5)
    artifacts.fuse(loaded, "default")
    torch.testing.assert_close(loaded.model(images()), y, rtol=1e-4, atol=1e-5)
    loaded.unfuse()
    loaded.activate("default")
    with torch.no_grad():
        artifacts.merge(adapted, probe=images())
        artifacts.merge(loaded, check=False)
    for key, value in adapted.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[key], value, rtol=0, atol=1e-6)
    torch.testing.assert_close(loaded.model(images()), y, rtol=1e-4, atol=1e-5)
    if head:
        assert not loaded.model.get_parameter("head.bias").any()
        assert len(loaded.model.get_parameter("head.weight").unique()) == 2


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(11)
    loss: Tensor = model(x).square().sum()
    return loss


def test_training_goes_on_from_a_folder_and_a_checkpoint_of_that_is_whole(
    small: Small, images: Images, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"bits": 2, "head_bits": 1, "dropout": 0.0}
    adapted = trained(small(), **options)
    before = float(loss_of(adapted.model, images()).detach())
    loaded = artifacts.load(small(), artifacts.save(adapted, tmp_path / "a"))
    optimizer = torch.optim.SGD(loaded.parameters(), lr=1e-3)

    def step(handle: Any, by: Any) -> float:
        by.zero_grad()
        loss = loss_of(handle.model.train(), images())
        loss.backward()
        by.step()
        return float(loss.detach())

    # nothing jumps: the first step sees the loss that was stored, and what comes after is trained
    assert step(loaded, optimizer) == pytest.approx(before, rel=1e-5)
    with torch.no_grad():
        for parameter in loaded.parameters():  # out of the reach of the file
            parameter.mul_(1.001)
    assert float(loss_of(loaded.model, images()).detach()) == pytest.approx(before, rel=0.02)
    # a checkpoint holds the latent values, whether they come of a file or not
    for handle in (loaded, artifacts.load(small(), tmp_path / "a")):
        state = {f"{site} {slot}": tensor for (site, slot), tensor in handle.tensors().items()}
        save_state(state, tmp_path / "state")
        twin = peftx.attach(small(), ADAPTFORMER, **options)
        saved = load_state(tmp_path / "state")
        with torch.no_grad():
            for (site, slot), tensor in twin.tensors().items():
                tensor.copy_(saved[f"{site} {slot}"])
        assert torch.equal(twin.model(images()), handle.model.eval()(images()))
        losses = [
            [step(one, by) for _ in range(3)]
            for one, by in ((h, torch.optim.SGD(h.parameters(), lr=1e-3)) for h in (handle, twin))
        ]
        assert losses[0] == losses[1]


def test_an_average_is_stored_as_it_acts(small: Small, images: Images, tmp_path: Path) -> None:
    adapted = trained(small(), head_bits=1)
    ema = Ema(0.9)
    ema.update(adapted, 1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ema.update(adapted, 2)
    now = adapted.model(images())
    with ema.applied(adapted):
        y = adapted.model(images())
        folder = artifacts.save(adapted, tmp_path / "a")
    assert not torch.equal(y, now) and torch.equal(adapted.model(images()), now)
    assert torch.equal(artifacts.load(small(), folder).model(images()), y)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_head_of_few_bits_has_no_bias(bits: int, small: Small, images: Images) -> None:
    model = small()
    weight, bias = (model.get_parameter(f"head.{name}").detach().clone() for name in ("weight", "bias"))
    seen: list[Tensor] = []
    model.get_submodule("head").register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    adapted = peftx.attach(model, ADAPTFORMER, head_bits=bits)
    assert bias.any() and adapted.counts().head == adapted.counts().owned == weight.numel()
    slots = {slot for site, slot in adapted.tensors() if site.startswith("head")}
    assert slots == {"value", "value_origin"}
    y = model(images())
    want = quantised(weight, codes(bits))
    torch.testing.assert_close(y, F.linear(seen[-1], want))
    value = dict(adapted.tensors())["head.weight", "value"]
    y.sum().backward()
    upstream = seen[-1].detach().sum(0).expand_as(weight)
    levels = torch.tensor(codes(bits))
    z = (weight - weight.mean()) / (weight.std() + 1e-5)
    q = levels[(z[..., None] - levels).abs().argmin(-1)]
    closed = upstream + (upstream * (q - z)).sum() * z / (weight.numel() - 1)
    torch.testing.assert_close(value.grad, closed, rtol=1e-4, atol=1e-4)
    adapted.detach()
    assert torch.equal(model.get_parameter("head.bias"), bias)
    assert torch.equal(model.get_parameter("head.weight"), weight)


def test_two_heads_have_a_mean_and_deviation_each(small: Small, tmp_path: Path) -> None:
    folder = artifacts.save(trained(small("deit"), head_bits=1), tmp_path / "a")
    found = sorted(key for key in payload(folder) if key.startswith("head"))
    assert found == [
        f"head{two}.weight::value.{part}" for two in ("", "_dist") for part in ("codes", "statistics")
    ]


def test_a_head_of_zeros_is_drawn(small: Small, images: Images) -> None:
    model = small()
    with torch.no_grad():
        model.get_parameter("head.weight").zero_()
    adapted = peftx.attach(model, ADAPTFORMER, head_bits=1)
    value = adapted.tensors()["head.weight", "value"]
    drawn = value.detach()
    assert drawn.std() > 0.05 and float(drawn.abs().max()) <= 24**-0.5
    model(images()).square().sum().backward()
    assert value.grad is not None and len(value.grad.unique()) > 2
    assert not model._modules["head"]._parameters["weight"].any()  # type: ignore[union-attr]


def test_a_folder_whose_bits_are_damaged_is_refused(small: Small, tmp_path: Path) -> None:
    from peftx_vision.methods import low_bit_maps

    adapted = trained(small(), width=3, head_bits=1)
    folder = artifacts.save(adapted, tmp_path / "a")

    def spoilt(weight: Tensor, bits: int, origin: Tensor | None = None) -> tuple[Tensor, Tensor]:
        octets, statistics = packed(weight, bits, origin)
        return octets.new_zeros(len(octets) + 1), statistics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_bit_maps, "packed", spoilt)
        artifacts.save(adapted, tmp_path / "b")
    with pytest.raises(
        ArtifactError, match=r"down.codes is torch.uint8 \(10,\), expected torch.uint8 \(9,\) here$"
    ):
        artifacts.load(small(), tmp_path / "b")
    said = json.loads((folder / "adapter.json").read_text())
    said["config"] |= {"bits": 32}
    (folder / "adapter.json").write_text(json.dumps(said))
    with pytest.raises(ArtifactError, match="does not pack it"):
        artifacts.load(small(), folder)
