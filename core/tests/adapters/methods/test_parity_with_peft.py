"""LoRA, rsLoRA and DoRA against the `peft` package: outputs, every gradient, and five AdamW steps to 1e-5."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx

peft = pytest.importorskip("peft", reason="the peft package is the oracle here")

TOLERANCE = 1e-5


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(12, 20)
        self.down = nn.Linear(20, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x)))


class Convs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 5, (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8, padding_idx=0)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.table(x))


def mlp() -> tuple[nn.Module, Tensor, list[str], dict[str, Any]]:
    return Mlp(), torch.randn(4, 5, 12), ["up", "down"], {}


def convs() -> tuple[nn.Module, Tensor, list[str], dict[str, Any]]:
    return Convs(), torch.randn(2, 3, 9, 8), ["first", "second"], {}


def lookup() -> tuple[nn.Module, Tensor, list[str], dict[str, Any]]:
    return Lookup(), torch.randint(0, 11, (4, 6)), ["table", "out"], {}


def vit() -> tuple[nn.Module, Tensor, list[str], dict[str, Any]]:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=0)
    return (
        model,
        torch.randn(2, 3, 32, 32),
        ["qkv", "proj", "fc1", "fc2"],
        {"exclude_modules": ["patch_embed.proj"]},
    )


def gpt2() -> tuple[nn.Module, Tensor, list[str], dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=23, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return (
        transformers.GPT2Model(config),
        torch.randint(0, 23, (2, 6)),
        ["c_attn", "c_fc"],
        {"fan_in_fan_out": True},
    )


def output(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    return y if isinstance(y, Tensor) else y.last_hidden_state


def pairs(ours: peftx.Adapted, theirs: nn.Module) -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    """(name, our parameter, peft's) of everything trained, matched by site and kind of factor."""
    found = []
    by_name = dict(theirs.named_parameters())
    for (site, slot), tensor in ours.tensors().items():
        prefix = f"base_model.model.{site}."
        names = {
            "A": ("lora_A.default.weight", "lora_embedding_A.default"),
            "B": ("lora_B.default.weight", "lora_embedding_B.default"),
            "m": ("lora_magnitude_vector.default.weight",),
        }[slot]
        match = [by_name[prefix + name] for name in names if prefix + name in by_name]
        assert len(match) == 1, (site, slot, names)
        found.append((f"{site}.{slot}", tensor, match[0]))
    trained = [p for p in theirs.parameters() if p.requires_grad]
    assert len(found) == len(trained)
    return found


def build(
    make: Callable[[], Any],
    method: str,
    *,
    rank: int,
    alpha: float,
    dtype: torch.dtype = torch.float32,
    **flags: Any,
) -> tuple[peftx.Adapted, nn.Module, Tensor, list[tuple[str, nn.Parameter, nn.Parameter]]]:
    torch.manual_seed(0)
    model, x, targets, extra = make()
    model.eval().to(dtype)
    x = x.to(dtype) if x.is_floating_point() else x
    exclude = extra.get("exclude_modules", [])
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, **extra, **flags
    )
    theirs = peft.get_peft_model(copy.deepcopy(model), config).eval().to(dtype)
    ours = peftx.attach(
        model, method, rank=rank, alpha=alpha, targets=targets, exclude=exclude, also_train=[]
    )
    matched = pairs(ours, theirs)
    with torch.no_grad():
        for _, mine, other in matched:
            # random factors: at B = 0 half of the gradients would be zero and prove nothing
            value = mine + 0.2 * torch.randn_like(mine)
            mine.copy_(value)
            other.copy_(value.view(other.shape))
    return ours, theirs, x, matched


def relative(mine: Tensor, other: Tensor) -> float:
    mine, other = mine.detach(), other.detach()
    return float((mine - other.view(mine.shape)).abs().max() / other.abs().max().clamp_min(1e-6))


CASES = [
    pytest.param(make, method, flags, id=f"{make.__name__}-{method}")
    for make in (mlp, convs, lookup, vit, gpt2)
    for method, flags in (
        ("core.lora", {}),
        ("core.rslora", {"use_rslora": True}),
        ("core.dora", {"use_dora": True}),
    )
]


@pytest.mark.parametrize(("make", "method", "flags"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_outputs_gradients_and_five_steps(
    make: Callable[[], Any], method: str, flags: dict[str, Any], dtype: torch.dtype
) -> None:
    """Steps in float32 are compared on the models without attention only: there some gradients are zero but for
    rounding (a constant added to all keys changes nothing), and AdamW scales these to full steps."""
    ours, theirs, x, matched = build(make, method, rank=3, alpha=5, dtype=dtype, **flags)
    weights = torch.randn_like(output(ours.model, x))
    mine_opt = torch.optim.AdamW(ours.parameters(), lr=1e-2, weight_decay=0.01)
    their_opt = torch.optim.AdamW(
        (p for p in theirs.parameters() if p.requires_grad), lr=1e-2, weight_decay=0.01
    )
    steps = 1 if dtype == torch.float32 and make in (vit, gpt2) else 5
    for step in range(steps):
        mine, other = output(ours.model, x), output(theirs, x)
        assert relative(mine, other) < TOLERANCE, f"output at step {step}"
        mine_opt.zero_grad()
        their_opt.zero_grad()
        (mine * weights).mean().backward()
        (other * weights).mean().backward()
        for name, p, q in matched:
            assert p.grad is not None and q.grad is not None
            assert relative(p.grad, q.grad) < 2 * TOLERANCE, f"gradient of {name} at step {step}"
        mine_opt.step()
        their_opt.step()
    if steps == 5:
        for name, p, q in matched:
            assert relative(p, q) < TOLERANCE, f"{name} after five steps"


def test_fresh_factors_have_pefts_distribution() -> None:
    """Kaiming-uniform with a = sqrt(5): uniform on +-1/sqrt(in); B zero."""
    torch.manual_seed(0)
    ours = peftx.attach(nn.Sequential(nn.Linear(400, 300)), "core.lora", targets=["0"], rank=50)
    a, b = ours.tensors()["0", "A"], ours.tensors()["0", "B"]
    bound = 1 / math.sqrt(400)
    assert a.abs().max() <= bound and a.abs().max() > 0.99 * bound
    assert abs(float(a.std()) - bound / math.sqrt(3)) < 0.02 * bound
    assert not b.any()


@pytest.mark.parametrize("pattern", [{"up": 2}, {r"u.": 4}, {"down": 1, "up": 6}])
def test_rank_and_alpha_patterns_mean_what_they_mean_in_peft(pattern: dict[str, int]) -> None:
    torch.manual_seed(0)
    model = Mlp().eval()
    alphas = {"down": 7}
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["up", "down"],
        rank_pattern=pattern,
        alpha_pattern=alphas,
        use_rslora=True,
    )
    theirs = peft.get_peft_model(copy.deepcopy(model), config)
    ours = peftx.attach(
        model,
        "core.rslora",
        rank=3,
        alpha=5,
        targets=["up", "down"],
        rank_pattern=pattern,
        alpha_pattern={k: float(v) for k, v in alphas.items()},
    )
    for name in ("up", "down"):
        layer = getattr(theirs.base_model.model, name)
        delta = next(d for d in ours.model.modules() if getattr(getattr(d, "site", None), "key", "") == name)
        assert delta.scale == pytest.approx(layer.scaling["default"], rel=1e-12)
        assert delta.rank == layer.r["default"]
