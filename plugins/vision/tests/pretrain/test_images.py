"""The image generators: repeatable by seed, of the right shape and range, with labels that fit."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from peftx_vision.pretrain.canvas import Placement, pixel_grid, random_placements
from peftx_vision.pretrain.contours import Contours
from peftx_vision.pretrain.fractals import Fractals
from peftx_vision.pretrain.leaves import dead_leaves
from peftx_vision.pretrain.mix import NO_TEXTURE, OBJECTS, TEXTURES, Mix
from peftx_vision.pretrain.sheet import main as sheet
from peftx_vision.pretrain.strokes import Strokes
from peftx_vision.pretrain.textures import Textures


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [Strokes, Contours, Fractals])
def test_figures(kind: type[Strokes] | type[Contours] | type[Fractals]) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = seeded(seed)
        source = kind(5, generator)
        return source.draw(torch.arange(5), random_placements(5, generator), generator)

    masks = draw(0)
    assert masks.shape == (5, 32, 32)
    assert masks.min() >= 0 and masks.max() <= 1
    assert (masks.flatten(1).amax(dim=1) > 0.5).all(), "a figure nobody can see"
    assert torch.equal(masks, draw(0))
    assert not torch.equal(masks, draw(1))


def test_textures_and_leaves() -> None:
    textures = Textures(6, seeded(0))
    for draw in (
        lambda seed: textures.draw(torch.arange(6), seeded(seed)),
        lambda seed: dead_leaves(6, seeded(seed)),
    ):
        images = draw(1)
        assert images.shape == (6, 3, 32, 32)
        assert torch.isfinite(images).all()
        assert (images.flatten(1).std(dim=1) > 0.01).all(), "an image without anything in it"
        assert torch.equal(images, draw(1))
        assert not torch.equal(images, draw(2))


@pytest.mark.parametrize("leaves", [False, True])
def test_a_batch(leaves: bool) -> None:
    batch = Mix(0).batch(step=3, size=40, leaves=leaves)
    assert batch.images.shape == (40, 3, 32, 32) and batch.masks.shape == (40, 32, 32)
    for values in (batch.images, batch.masks):
        assert values.min() >= 0 and values.max() <= 1
    assert batch.objects.min() >= 0 and batch.objects.max() < OBJECTS
    textured = batch.textures != NO_TEXTURE
    assert textured.any() and not textured.all()
    assert batch.textures[textured].min() >= 0 and batch.textures[textured].max() < TEXTURES


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    mix = Mix(0)
    mix.batch(step=0, size=10)  # what was drawn before must not matter
    torch.manual_seed(123)  # nor the global generator
    images = mix.batch(step=1, size=10).images
    assert torch.equal(images, Mix(0).batch(step=1, size=10).images)
    assert not torch.equal(images, Mix(0).batch(step=2, size=10).images)
    assert not torch.equal(images, Mix(1).batch(step=1, size=10).images)


def test_undo_is_the_inverse_of_place() -> None:
    placement: Placement = random_placements(3, seeded(0))
    grid = pixel_grid(4)
    assert torch.allclose(placement.place(placement.undo(grid)), grid.expand(3, -1, -1), atol=1e-5)


def test_the_contact_sheet_is_a_picture(tmp_path: Path) -> None:
    assert sheet(["--out", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (14 * 34 * 2, 6 * 34 * 2)
