"""From image to input: sizes, channels, statistics, augmentation, and images too small."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from peftx.errors import DataError, ModelError
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.pixels import InputSpec, augment, describe, input_spec, prepare, to_input

SPEC = InputSpec(
    channels=3,
    height=32,
    width=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.5, 1.0),
    interpolation="bilinear",
    resize="squash",
    crop_pct=1.0,
    patch=(4, 4),
    small_images="refuse",
)


def model(**card: object) -> nn.Module:
    found = nn.Identity()
    found.pretrained_cfg = card  # type: ignore[assignment]
    return found


def test_the_models_own_input_is_the_default() -> None:
    card = {"input_size": (3, 48, 64), "mean": (0.1, 0.2, 0.3), "std": (1, 2, 3), "interpolation": "bilinear"}
    spec = input_spec(model(**card), ClassificationConfig())
    assert (spec.height, spec.width, spec.mean, spec.std) == (48, 64, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert spec.interpolation == "bilinear" and spec.bytes == 3 * 48 * 64


@pytest.mark.parametrize(
    ("choice", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("half", (0.5,) * 3, (0.5,) * 3),
        ("none", (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_statistics_may_be_chosen(choice: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    spec = input_spec(model(mean=(9, 9, 9)), ClassificationConfig.model_validate({"normalise": choice}))
    assert (spec.mean, spec.std) == (mean, std)


def test_a_model_that_says_nothing_gets_defaults() -> None:
    spec = input_spec(nn.Identity(), ClassificationConfig())
    assert (spec.channels, spec.height, spec.mean, spec.patch) == (3, 224, (0.5,) * 3, (1, 1))


def test_odd_channels_are_refused() -> None:
    with pytest.raises(ModelError, match="takes 4"):
        input_spec(model(input_size=(4, 32, 32)), ClassificationConfig())


def test_patch_or_first_kernel() -> None:
    patched = model()
    patched.patch_embed = SimpleNamespace(patch_size=(8, 16))  # type: ignore[assignment]
    assert input_spec(patched, ClassificationConfig()).patch == (8, 16)
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 7))
    convolutional.pretrained_cfg = {"first_conv": "0"}  # type: ignore[assignment]
    assert input_spec(convolutional, ClassificationConfig()).patch == (7, 7)


@pytest.mark.parametrize("kind", ["grey array", "colour array", "one channel", "L", "RGB", "RGBA", "P", "1"])
def test_every_kind_of_image_becomes_three_channels_of_bytes(kind: str) -> None:
    grey = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)
    image = {
        "grey array": grey,
        "colour array": np.stack([grey] * 3, 2),
        "one channel": grey[:, :, None],
    }.get(kind)
    if image is None:
        image = Image.fromarray(grey).convert(kind)
    found = prepare(image, SPEC, "x")
    assert found.shape == (3, 32, 32) and found.dtype == torch.uint8
    if kind != "1":
        assert torch.equal(found, prepare(grey, SPEC, "x"))


def test_colour_becomes_grey_for_a_model_of_one_channel() -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:, :, 1] = 200
    found = prepare(colour, replace(SPEC, channels=1), "x")
    assert found.shape == (1, 32, 32) and abs(int(found[0, 0, 0]) - 117) <= 1


def test_squash_keeps_everything_and_crop_keeps_the_proportions() -> None:
    wide = np.zeros((32, 64), np.uint8)
    wide[:, :16] = 255
    squashed = prepare(wide, SPEC, "x")
    cropped = prepare(wide, replace(SPEC, resize="crop"), "x")
    assert squashed[0, 16, :6].min() == 255
    assert cropped.max() == 0
    assert cropped.shape == squashed.shape == (3, 32, 32)


def test_the_model_size_is_passed_through_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(prepare(image, SPEC, "x").permute(1, 2, 0).numpy(), image)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 40), (40, 3)])
def test_an_image_smaller_than_a_patch_is_refused_by_name(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    with pytest.raises(
        DataError, match=rf"cat\.png is {size[0]}x{size[1]} pixels, smaller than one 4x4 patch"
    ) as e:
        prepare(image, SPEC, "image cat.png")
    assert "--task.small-images upscale" in str(e.value) and "\n" not in str(e.value)
    assert prepare(image, replace(SPEC, small_images="upscale"), "x").shape == (3, 32, 32)


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8)])
def test_what_is_not_an_image_of_bytes_is_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected 8-bit pixels"):
        prepare(array, SPEC, "image 3")


def test_normalisation_is_exact() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    found = to_input(pixels, SPEC)
    assert found.dtype == torch.float32
    assert found[:, :, 0, 0].tolist() == [[-2.0, -1.0, -0.5], [2.0, 1.0, 0.5]]


def test_flips_and_shifts_come_from_the_generator_alone() -> None:
    pixels = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    config = ClassificationConfig(hflip=True, crop=2)

    def draw(seed: int) -> torch.Tensor:
        return augment(pixels, config, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(augment(pixels, ClassificationConfig(), None), pixels)


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    pixels = torch.randint(0, 256, (200, 1, 4, 4), dtype=torch.uint8)
    found = augment(pixels, ClassificationConfig(hflip=True), torch.Generator().manual_seed(0))
    same = (found == pixels).flatten(1).all(1)
    mirrored = (found == pixels.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all() and 60 < int(mirrored.sum()) < 140


def test_a_shift_moves_by_at_most_the_given_pixels() -> None:
    ramp = torch.arange(10, dtype=torch.uint8).expand(50, 1, 10, 10)
    found = augment(ramp, ClassificationConfig(crop=3), torch.Generator().manual_seed(0))
    centre = found[:, 0, 5, 5].int() - 5
    assert int(centre.min()) == -3 and int(centre.max()) == 3


@pytest.mark.parametrize(
    ("options", "own", "key", "words"),
    [
        ({}, (0.5, 0.5, 0.5), "normalisation", "half, the model's own"),
        ({}, (0.485, 0.456, 0.406), "normalisation", "of another mean and deviation, the model's own"),
        ({"normalise": "imagenet"}, (0.5, 0.5, 0.5), "normalisation", "imagenet"),
        ({"normalise": "none"}, (0.5, 0.5, 0.5), "normalisation", "none"),
        ({}, (0.5, 0.5, 0.5), "resize", "squash"),
        ({"resize": "crop"}, (0.5, 0.5, 0.5), "resize", "crop, the central 0.875"),
        ({"interpolation": "nearest"}, (0.5, 0.5, 0.5), "interpolation", "nearest"),
        ({}, (0.5, 0.5, 0.5), "augmentation", "none"),
        (
            {"hflip": True, "crop": 4, "mixup": 0.2, "cutmix": 1.0, "rand_augment": "rand-m9"},
            (0.5, 0.5, 0.5),
            "augmentation",
            "hflip, crop 4, rand_augment rand-m9, mixup 0.2, cutmix 1.0",
        ),
    ],
)
def test_what_a_record_says_of_the_input(
    options: dict[str, object], own: tuple[float, ...], key: str, words: str
) -> None:
    config = ClassificationConfig.model_validate(options)
    card = {"input_size": (3, 48, 64), "mean": own, "std": (0.5, 0.5, 0.5), "crop_pct": 0.875}
    found = describe(input_spec(model(**card), config), config)
    assert found[key] == words
    assert found["size"] == "3 x 48 x 64" and found["std"] == list(input_spec(model(**card), config).std)


def test_one_channel_has_the_same_names() -> None:
    for name in ("imagenet", "half", "none"):
        config = ClassificationConfig.model_validate({"normalise": name})
        spec = input_spec(model(input_size=(1, 28, 28)), config)
        assert describe(spec, config)["normalisation"] == name
