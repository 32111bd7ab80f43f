"""A vision transformer small enough to ship inside the package.

Every other pretrained vision transformer has to be downloaded. This one (0.8 M parameters, 3.3 MB) travels with
`peftx-vision`, so the first run, the tests and an offline machine all have a backbone whose features mean
something. It is timm's own `VisionTransformer`, not a look-alike: whatever works here (site names, role tables,
export) works unchanged on the timm model a user brings later.

The weights come from `peftx_vision.pretrain`, which trains on generated images only; `weights/vit_micro.json` beside
them records the command, the probe scores and the checksum verified here.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from peftx.errors import ModelError

IMAGE_SIZE = 32
PATCH_SIZE = 4
WIDTH = 128
DEPTH = 4
HEADS = 4
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
WEIGHTS_NAME = "vit_micro.safetensors"
CARD_NAME = "vit_micro.json"


def build_vit_micro(num_classes: int, pretrained: bool = True) -> VisionTransformer:
    """Build the network for `num_classes` (0 for no head: the pooled features come out).

    Input is (B, 3, 32, 32), RGB in [0, 1] normalised with `MEAN` and `STD`. The head is always fresh.

    Raises:
        ModelError: the shipped weights are missing, damaged, or do not fit this architecture.
    """
    model = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=4.0,
        class_token=False,
        global_pool="avg",
        num_classes=num_classes,
        weight_init="skip",
    )
    _initialise(model)
    if pretrained:
        _load(model, read_weights(_weights_folder()))
    card: dict[str, Any] = {
        "architecture": "vit_micro",
        "num_classes": num_classes,
        "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": MEAN,
        "std": STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }
    # timm reads `pretrained_cfg` and keeps `default_cfg` as its old name; generic code may look at either.
    model.pretrained_cfg = model.default_cfg = card  # type: ignore[assignment]
    return model


def read_weights(folder: Traversable) -> dict[str, Tensor]:
    """Read the weights in `folder`, after comparing their checksum with the card beside them."""
    try:
        blob = folder.joinpath(WEIGHTS_NAME).read_bytes()
        expected = json.loads(folder.joinpath(CARD_NAME).read_text(encoding="utf-8"))["sha256"]
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"vit_micro: cannot read {WEIGHTS_NAME} and its card {CARD_NAME} ({error}). Reinstall peftx-vision, "
            "or build the model with pretrained=False."
        ) from error
    actual = hashlib.sha256(blob).hexdigest()
    if actual != expected:
        raise ModelError(
            f"vit_micro: {WEIGHTS_NAME} has sha256 {actual[:12]}..., its card says {expected[:12]}...: the file was "
            "damaged or replaced. Reinstall peftx-vision."
        )
    return load_safetensors(blob)


def sincos_positions(side: int, width: int) -> Tensor:  # (1, side * side, width)
    """Two-dimensional sine-cosine positions: half of the channels encode the row, half the column.

    Fixed positions matter more than their size suggests: from learned positions starting at N(0, .02), the
    pretraining below does not leave chance within a small budget.
    """
    frequencies = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies  # (side, width / 4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows = axis[:, None, :].expand(side, side, -1)
    columns = axis[None, :, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(1, side * side, width).float()


def _initialise(model: VisionTransformer) -> None:
    """Xavier for the trunk (patch embedding seen as a matrix), timm's own default for the head."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    projection = model.patch_embed.proj
    assert isinstance(projection, nn.Conv2d) and projection.bias is not None
    nn.init.xavier_uniform_(projection.weight.view(WIDTH, -1))
    nn.init.zeros_(projection.bias)
    assert model.pos_embed is not None
    with torch.no_grad():
        model.pos_embed.copy_(sincos_positions(IMAGE_SIZE // PATCH_SIZE, WIDTH))
    if isinstance(model.head, nn.Linear):
        nn.init.trunc_normal_(model.head.weight, std=0.02)
        nn.init.zeros_(model.head.bias)


def _weights_folder() -> Traversable:
    return resources.files("peftx_vision") / "weights"


def _load(model: VisionTransformer, weights: dict[str, Tensor]) -> None:
    own = {key: value.shape for key, value in model.state_dict().items() if not key.startswith("head.")}
    stored = {key: value.shape for key, value in weights.items()}
    if own != stored:
        odd = sorted(key for key in own.keys() | stored.keys() if own.get(key) != stored.get(key))
        raise ModelError(f"vit_micro: the stored weights do not fit the network; first difference: {odd[0]}")
    model.load_state_dict(weights, strict=False)
