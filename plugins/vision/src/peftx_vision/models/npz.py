"""Weights of the original ViT release, ``ViT-B_16.npz`` and its kin, for timm's vision transformers.

A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929. The names are those of the release
(``embedding/kernel``, ``Transformer/encoderblock_0/LayerNorm_0/scale``, ``head/bias``), and timm's own loader reads
them: it turns the kernels, joins query, key and value, and resamples positions and patches to another size. What that
loader does not do is done here: it takes the first blocks of a deeper file, and leaves at random whatever such files
never hold. Both would be a model that looks loaded and is not.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from peftx.errors import ModelError
from peftx_vision.models.weights import classifier_paths

__all__ = ["fit_npz"]

_BLOCK = re.compile(r"(?:^|/)Transformer/encoderblock_([0-9]+)/")
#: All blocks stacked along a first axis, as big_vision writes them.
_STACKED = "Transformer/encoderblock/LayerNorm_0/scale"


def fit_npz(model: nn.Module, path: Path) -> list[str]:
    """Load the file into `model`, whose weights are otherwise at random; return sentences on what was left out.

    The classifier stays as it is when the file has none or one of another width; everything else must be there.

    Raises:
        ModelError: no such file, not of the release's form, or for another architecture; the model is no vision
            transformer of timm's.
    """
    if not isinstance(model, VisionTransformer):
        raise ModelError(
            f"{path.name} is in the form of the original ViT release, which {type(model).__name__} cannot read: "
            "give a .safetensors, .pt or .pth file of this model"
        )
    shapes = _shapes(path)
    _check_size(model, shapes, path)
    heads = classifier_paths(model)
    trunk = {
        name: value
        for name, value in model.named_parameters()
        if not any(name.startswith(f"{head}.") for head in heads)
    }
    with torch.no_grad():
        for value in trunk.values():
            value.fill_(float("nan"))  # what stays so was not in the file
    try:
        model.load_pretrained(str(path))
    except (
        Exception
    ) as error:  # names that are not there, shapes that do not fit, positions that are no square
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(f"{path.name} does not fit {type(model).__name__}: {cause}") from error
    lost = next((name for name, value in trunk.items() if value.isnan().any()), None)
    if lost is not None:
        raise ModelError(
            f"{path.name} does not fit {type(model).__name__}: it has nothing for {lost}, so this is another kind of "
            "vision transformer; choose the model of the file"
        )
    return _notes(model, shapes, path)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays by name, from their headers alone; ModelError when it is no .npz of the release's form."""
    if not path.is_file():
        raise ModelError(f"no weights file at {path}")
    try:
        with zipfile.ZipFile(path) as stored:
            found = {name.removesuffix(".npy"): _shape(stored, name) for name in stored.namelist()}
    except Exception as error:  # zlib, zipfile and numpy each have their own
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise ModelError(
            f"{path} is not a readable weights file ({cause}): it is damaged, of another kind than its name says, or "
            "needs to run code"
        ) from error
    if not any(name.endswith("embedding/kernel") for name in found):
        raise ModelError(
            f"{path} is not of the form of the original ViT release: it has no array embedding/kernel"
        )
    for end, sides in (("embedding/kernel", 4), ("head/bias", 1)):
        odd = next(
            (name for name, shape in found.items() if name.endswith(end) and len(shape) != sides), None
        )
        if odd is not None:
            raise ModelError(
                f"{path} is not of the form of the original ViT release: {odd} has {len(found[odd])} sides, not {sides}"
            )
    return found


def _shape(stored: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with stored.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    return tuple(shape)


def _check_size(model: VisionTransformer, shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Refuse a file of another width or depth, of which timm's loader would take what fits."""
    width = next(shape[-1] for name, shape in shapes.items() if name.endswith("embedding/kernel"))
    blocks = {int(found[1]) for name in shapes if (found := _BLOCK.search(name))}
    depth = next((shape[0] for name, shape in shapes.items() if name.endswith(_STACKED)), len(blocks))
    for what, held, expected in (
        ("is {} wide", width, model.embed_dim),
        ("has {} blocks", depth, len(model.blocks)),
    ):
        if held != expected:
            raise ModelError(
                f"{path.name} does not fit {type(model).__name__}: it {what.format(held)}, the model "
                f"{what.format(expected)}; choose the model of the file"
            )


def _notes(model: VisionTransformer, shapes: dict[str, tuple[int, ...]], path: Path) -> list[str]:
    notes = []
    classes = next((shape[-1] for name, shape in shapes.items() if name.endswith("head/bias")), 0)
    own = getattr(model.head, "out_features", 0)
    if own and classes != own:
        had = f"its head for {classes} classes is dropped" if classes else "it has no head"
        notes.append(f"weights {path.name}: {had}, a new one is trained")
    if any("pre_logits/" in name for name in shapes):
        notes.append(
            f"weights {path.name}: its representation layer before the head (pre_logits) is left out"
        )
    channels = next(shape[-2] for name, shape in shapes.items() if name.endswith("embedding/kernel"))
    taken = model.patch_embed.proj.weight.shape[1] if hasattr(model.patch_embed, "proj") else channels
    if channels == 3 != taken and not hasattr(model.patch_embed, "backbone"):
        notes.append(f"first convolution: 3 input channels turned into {taken}")
    return notes
