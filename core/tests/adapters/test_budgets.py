"""What an adapted model may keep for its backward pass, and how much it may call: exact, so that it can gate.

Two blocks of a ViT-B (width 768, MLP 3072) with LoRA or DoRA on its four linear layers. Per block and over the floor
(everything frozen but the head, the first block's input requiring grad), with N rows in the batch, D wide, at rank R:

- LoRA keeps the inputs of qkv and fc1 (N D each) and of fc2 (4 N D; 0 when its GELU is recomputed), and four x A^T
  (N R each). The input of proj is the attention's output, which the attention keeps anyway. Dropout adds nothing.
- DoRA keeps its own outputs too: those of proj and fc2 (N D each); those of qkv and fc1 are kept by the attention and
  the GELU anyway. And a gate per output.
"""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import peftx

timm = pytest.importorskip("timm", reason="the budgets are those of a timm ViT")

DEPTH, WIDTH, RANK, BATCH, TOKENS = 2, 768, 16, 2, 17
ROWS = BATCH * TOKENS
OUTPUTS = 3 * WIDTH + WIDTH + 4 * WIDTH + WIDTH  # of qkv, proj, fc1, fc2
TARGETS = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
LINEARS = DEPTH * len(TARGETS)


def vit() -> nn.Module:
    model = timm.create_model("vit_base_patch16_224", img_size=64, depth=DEPTH, num_classes=10)
    nn.init.normal_(model.head.weight, std=0.02)
    model.requires_grad_(False).patch_embed.register_forward_hook(lambda _m, _i, y: y.requires_grad_())
    model.head.requires_grad_()
    return model.train()


def adapted(method: str, **options: Any) -> nn.Module:
    model = vit()
    peftx.attach(model, f"core.{method}", rank=RANK, alpha=2 * RANK, targets=TARGETS, **options)
    return model


def images() -> Tensor:
    return torch.randn(BATCH, 3, 64, 64)


class Holder:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(model: nn.Module) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    holders: weakref.WeakSet[Holder] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Holder:
        holder = Holder(tensor.detach())  # an output that knew its own node would keep the graph alive
        holders.add(holder)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        loss = model(images()).square().sum()
    storages = [holder.tensor.untyped_storage() for holder in holders]
    total = sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in own}.values())
    loss.backward()
    return total


@pytest.fixture(scope="module")
def floor() -> int:
    return kept_bytes(vit())


def budget(method: str, recompute: bool) -> int:
    inputs = (2 if recompute else 6) * ROWS * WIDTH + 4 * ROWS * RANK
    outputs = 2 * ROWS * WIDTH + OUTPUTS if method == "dora" else 0
    return 4 * DEPTH * (inputs + outputs)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_kept_bytes(method: str, recompute: bool, dropout: float, floor: int) -> None:
    model = adapted(method, dropout=dropout, recompute_activations=recompute)
    over = kept_bytes(model) - floor
    assert over <= budget(method, recompute)
    # a figure far below the formula would say that something is not trained, or not counted
    assert over >= budget(method, recompute) - 4 * DEPTH * OUTPUTS


def test_the_design_budgets_follow() -> None:
    """The formula at ViT-B/16, batch 8, over the floor's 564.5 MiB: 902, 680, 1015 and 795 MiB."""

    def mib(method: str, recompute: bool) -> float:
        rows, depth = 8 * 197, 12
        scaled = 4 * depth * ((2 if recompute else 6) * rows * WIDTH + 4 * rows * RANK)
        scaled += 4 * depth * (2 * rows * WIDTH + OUTPUTS) if method == "dora" else 0
        return 564.5 + scaled / 2**20

    found = [mib("lora", False), mib("lora", True), mib("dora", False), mib("dora", True)]
    assert all(one <= most for one, most in zip(found, (902, 680, 1015, 795), strict=True)), found


class Calls(TorchDispatchMode):
    """Counts calls that compute or allocate; views are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = "view _unsafe_view t transpose permute slice select split unbind expand alias detach unsqueeze squeeze"
        self.count += func.overloadpacket.__name__ not in views.split()
        return func(*args, **(kwargs or {}))


def calls(model: nn.Module) -> int:
    x = images()
    model(x).sum().backward()  # gradients exist, caches are full
    with Calls() as counter:
        model(x).sum().backward()
    return counter.count


@pytest.fixture(scope="module")
def floor_calls() -> int:
    return calls(vit())


@pytest.mark.parametrize(
    ("method", "options", "most"),
    [
        ("lora", {}, 12),
        ("lora", {"recompute_activations": True}, 12.25),  # one GELU more a block
        ("lora", {"dropout": 0.1}, 28),
        ("dora", {}, 33),
    ],
    ids=["LoRA", "LoRA, recomputed", "LoRA, dropout", "DoRA"],
)
def test_calls(method: str, options: dict[str, Any], most: float, floor_calls: int) -> None:
    over = (calls(adapted(method, **options)) - floor_calls) / LINEARS
    assert 5 <= over <= most


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_no_more_calls_and_bytes_than_the_peft_package(method: str) -> None:
    peft = pytest.importorskip("peft", reason="compares with the peft package")
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=TARGETS,
        modules_to_save=["head"],
        use_dora=method == "dora",
    )
    theirs, ours = peft.get_peft_model(vit(), config).train(), adapted(method)
    assert kept_bytes(ours) <= kept_bytes(theirs)
    assert calls(ours) <= calls(theirs)
