"""The variants: one ViT, untouched (the floor) or adapted by peftx or by ``peft``, from the same numbers.

The floor is what no adapter method can avoid: everything frozen but the head, and the input of the first block
requiring grad, so that the backward pass runs through all blocks. All models share the storage of the frozen weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

import peftx

__all__ = [
    "ALPHA",
    "CLASSES",
    "RANK",
    "TARGETS",
    "Size",
    "Variant",
    "base_model",
    "build",
    "peft_model",
    "require_grad_in",
]

RANK, ALPHA, CLASSES = 16, 32, 100
TARGETS = [
    "attn.qkv",
    "attn.proj",
    "mlp.fc1",
    "mlp.fc2",
]  # not "proj": that is the patch embedding's name, too


@dataclass(frozen=True, slots=True)
class Size:
    """Which ViT-B/16: how many blocks, and the batches for times and for bytes."""

    depth: int = 12
    batch: int = 4
    bytes_batch: int = 8


@dataclass(frozen=True, slots=True)
class Variant:
    """``library``: floor, peftx or peft; ``method``: lora or dora."""

    library: str
    method: str = "lora"
    recompute: bool = False
    dropout: float = 0.0

    def __str__(self) -> str:
        if self.library == "floor":
            return "floor"
        name = "LoRA" if self.method == "lora" else "DoRA"
        extras = [f"dropout {self.dropout:g}"] * bool(self.dropout) + ["GELU recomputed"] * self.recompute
        return ", ".join([f"{self.library} {name}", *extras])


def base_model(size: Size) -> nn.Module:
    """Return a ViT-B/16 with random weights; the head is random, too (timm's is zero, which would hide everything)."""
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", num_classes=CLASSES, depth=size.depth)
    nn.init.normal_(model.head.weight, std=0.02)
    return model


def build(variant: Variant, base: nn.Module, size: Size) -> nn.Module:
    """Return the variant over the frozen weights of ``base``, its factors filled from fixed seeds, in train mode."""
    model = copy.deepcopy(base)
    shared = dict(base.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.data = shared[name].data if not name.startswith("head") else shared[name].data.clone()
        parameter.requires_grad_(name.startswith("head"))
    if variant.library == "peftx":
        peftx.attach(
            model,
            f"core.{variant.method}",
            rank=RANK,
            alpha=ALPHA,
            dropout=variant.dropout,
            targets=TARGETS,
            recompute_activations=variant.recompute,
        )
        _fill(model, size, "{}.peftx.default.weight.A", "{}.peftx.default.weight.B")
    elif variant.library == "peft":
        model = peft_model(model, variant)
        _fill(
            model,
            size,
            "base_model.model.{}.lora_A.default.weight",
            "base_model.model.{}.lora_B.default.weight",
        )
    return model.train()


def peft_model(model: nn.Module, variant: Variant) -> Any:
    """Return ``model`` adapted by the ``peft`` package, equal in every setting."""
    import peft

    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=variant.dropout,
        target_modules=TARGETS,
        modules_to_save=["head"],
        use_dora=variant.method == "dora",
    )
    return peft.get_peft_model(model, config)


def _fill(model: nn.Module, size: Size, a_name: str, b_name: str) -> None:
    """Give both libraries the same factors; B is not zero, so that every gradient is there from the first step."""
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(1)
    for block in range(size.depth):
        for target in TARGETS:
            path = f"blocks.{block}.{target}"
            a, b = parameters[a_name.format(path)], parameters[b_name.format(path)]
            with torch.no_grad():
                a.uniform_(-(a.shape[1] ** -0.5), a.shape[1] ** -0.5, generator=generator)
                b.normal_(std=0.01, generator=generator)


def require_grad_in(model: nn.Module) -> Any:
    """Make the input of the first block require grad; returns the hook's handle."""

    def mark(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output.requires_grad_()

    patch = next(module for name, module in model.named_modules() if name.endswith("patch_embed"))
    return patch.register_forward_hook(mark)
