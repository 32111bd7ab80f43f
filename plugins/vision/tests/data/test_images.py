"""`open_image` turns every kind of image into the same upright 8-bit RGB, or names the file it cannot
read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peftx.errors import DataError
from peftx_vision.data.images import EXTENSIONS, open_image, signature

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def pixels(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.PNG"])
def test_lossless_formats_are_exact(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(RAMP).save(path, **({"lossless": True} if "webp" in name else {}))
    assert np.array_equal(pixels(path), RAMP)
    assert signature(path.read_bytes()[:64])


def test_every_extension_is_readable(tmp_path: Path) -> None:
    for extension in EXTENSIONS:
        path = tmp_path / f"a{extension}"
        Image.new("RGB", (5, 3), (200, 30, 60)).save(path)
        assert signature(path.read_bytes()[:64])
        assert pixels(path).shape == (3, 5, 3)
        assert np.abs(pixels(path).astype(int) - (200, 30, 60)).max() < 8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert pixels(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_grey_and_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8)).save(tmp_path / "grey.png")
    assert pixels(tmp_path / "grey.png").tolist() == [[[0] * 3, [7] * 3, [255] * 3]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert pixels(tmp_path / "bit.png").tolist() == [[[255] * 3, [0] * 3]]


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    image.save(tmp_path / "p.png")
    assert pixels(tmp_path / "p.png").tolist() == [[[200, 100, 50], [10, 20, 30]]]
    # the same with index 1 transparent
    image.save(tmp_path / "t.png", transparency=1)
    assert pixels(tmp_path / "t.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_transparent_becomes_white(tmp_path: Path) -> None:
    rgba = np.array([[[9, 9, 9, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 255, 255], [10, 20, 30], [204, 204, 204]]]
    Image.fromarray(np.array([[[0, 0], [0, 255]]], dtype=np.uint8), mode=None).save(tmp_path / "la.png")
    assert pixels(tmp_path / "la.png").tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "c.jpg").astype(int) - (255, 0, 0)).max() < 12


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))  # red left, blue right
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show: red on top
    image.save(tmp_path / "r.jpg", exif=exif, quality=95)
    shown = pixels(tmp_path / "r.jpg")
    assert shown.shape == (40, 20, 3)
    assert shown[5, 10, 0] > 200 and shown[35, 10, 2] > 200


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp"])
def test_a_truncated_image_is_named(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:900])
    with pytest.raises(DataError, match=name) as caught:
        open_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"a\.jpg \(not an image\)"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"no such image: .*absent"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(DataError, match="is a folder, but an image file was expected"):
        open_image(tmp_path)
    # Pillow knows this format, and hands it to Ghostscript; it is not among ours
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    with pytest.raises(DataError, match="not an image"):
        open_image(tmp_path / "a.eps")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="larger than 2,000 pixels"):
        open_image(tmp_path / "a.png")
