"""What the suites of published protocols share: the network, the methods, the training."""

from __future__ import annotations

from typing import Any

__all__ = ["METHODS", "PRINTED_ON", "RATES", "TRAIN", "VIT_B"]

#: ViT-B/16 of the first ViT release, pretrained on ImageNet-21k (``ViT-B_16.npz``): the network of almost all published
#: tables. Other tags of the same architecture (``augreg``, today's default of the bare name) are other networks.
VIT_B: dict[str, Any] = {"name": "vit_base_patch16_224.orig_in21k", "drop_path": 0.1}
#: How rows of papers call it.
PRINTED_ON = "ViT-B/16, ImageNet-21k"

#: The two ends, a head alone and everything, and between them the methods whose own papers used these protocols.
METHODS = (
    "core.head",
    "core.full",
    "core.bitfit",
    "core.lora",
    "vision.vpt_shallow",
    "vision.vpt_deep",
    "vision.adaptformer",
    "vision.ssf",
    "vision.hydra",
    "vision.bi_adaptformer",
    "vision.mosa",
    "vision.snell",
)

#: The recipe most papers after VPT share: AdamW, 100 epochs of which 10 warm up, cosine, batches of 64.
TRAIN: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 64,
    "warmup": 0.1,
    "schedule": "cosine",
    "weight_decay": 1e-4,
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
