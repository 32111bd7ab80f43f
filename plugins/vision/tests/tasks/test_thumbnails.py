"""Small pictures: size, stripped of all but pixels, the smaller form, and a map over what the model saw."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from peftx_vision.tasks.pixels import InputSpec, prepare
from peftx_vision.tasks.thumbnails import encode, overlay, seen_box, thumbnail


def spec(resize: str = "squash", crop_pct: float = 1.0, height: int = 32, width: int = 32) -> InputSpec:
    return InputSpec(
        3, height, width, (0.5,) * 3, (0.5,) * 3, "bilinear", resize, crop_pct, (4, 4), "upscale"
    )


def decoded(uri: str) -> Image.Image:
    head, _, text = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1500, 2000, 3), (96, 72)), ((3000, 3), (3, 3000)), ((8, 8), (8, 8)), ((96, 97), (96, 95))],
)
def test_no_side_is_longer_than_96_pixels(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    made = thumbnail(np.zeros(shape, np.uint8))
    assert made.size == (size if max(size) <= 96 else (1, 96))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_grey_or_rgb(mode: str) -> None:
    made = thumbnail(Image.new("RGB", (200, 100), (250, 10, 10)).convert(mode))
    assert made.mode in ("L", "RGB") and made.size == (96, 48)
    assert decoded(encode(made)).size == (96, 48)


def test_nothing_but_pixels_goes_along() -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "the name of a patient"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(
        buffer, "jpeg", exif=exif, comment=b"the name of a patient", icc_profile=b"profile" * 99
    )
    opened = Image.open(io.BytesIO(buffer.getvalue()))
    assert opened.info["comment"] and opened.info["icc_profile"] and opened.getexif()
    made = decoded(encode(thumbnail(opened)))
    assert not {"exif", "comment", "icc_profile"} & made.info.keys() and not made.getexif()


def test_flat_pictures_are_png_and_photographs_jpeg() -> None:
    assert encode(Image.new("RGB", (96, 96))).startswith("data:image/png")
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert encode(Image.fromarray(noise)).startswith("data:image/jpeg")
    assert len(encode(Image.fromarray(noise))) < 16_000, "24 of them and 9 maps stay below 400 kB"


@pytest.mark.parametrize("size", [(200, 100), (60, 180), (32, 32), (33, 50)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_the_box_is_what_the_crop_keeps(size: tuple[int, int], crop_pct: float) -> None:
    made, (width, height) = spec("crop", crop_pct), size
    # an image whose pixels say where they stand
    across = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)
    down = np.linspace(0, 255, height).astype(np.uint8)[:, None].repeat(width, 1)
    seen = prepare(np.stack([across, down, down], 2), made, "image").float() / 255
    left, top, right, bottom = seen_box(width, height, made)
    assert float(seen[0].min()) == pytest.approx(left, abs=0.05)
    assert float(seen[0].max()) == pytest.approx(right, abs=0.05)
    assert float(seen[1].min()) == pytest.approx(top, abs=0.05)
    assert float(seen[1].max()) == pytest.approx(bottom, abs=0.05)


def test_the_colour_stands_where_the_map_says() -> None:
    cells = torch.zeros(4, 4)
    cells[1, 2] = 1.0
    made = np.asarray(overlay(np.full((8, 8), 128, np.uint8), cells, spec()), np.int64)
    assert made.shape == (48, 48, 3)
    spread = made.max(2) - made.min(2)
    row, column = np.unravel_index(int(spread.argmax()), spread.shape)
    assert 12 <= row < 24 and 24 <= column < 36
    assert spread[40:, :12].max() == 0


def test_what_the_model_does_not_see_is_darker() -> None:
    made = np.asarray(overlay(np.full((50, 100, 3), 200, np.uint8), torch.zeros(4, 4), spec("crop")))
    assert made.shape == (48, 96, 3)
    assert made[:, :20].max() < made[:, 30:66].min()


@pytest.mark.parametrize("shape", [(3000, 40), (40, 3000), (9600, 100), (2000, 16)])
def test_very_long_images_have_a_map_too(shape: tuple[int, int]) -> None:
    made = overlay(np.full((*shape, 3), 200, np.uint8), torch.ones(4, 4), spec("crop"))
    assert max(made.size) == 96 and np.asarray(made).max() > 0
