"""Images of a data set as small pictures inside a report: shrunk, stripped of all but their pixels, and in base64."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from peftx_vision.tasks.pixels import InputSpec, scaled_size

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["SIDE", "encode", "overlay", "seen_box", "thumbnail"]

#: Pixels of the longer side of a picture, at most; a map is drawn on at least half of that.
SIDE = 96
#: The colours of a map from some evidence to the most: dark enough and bright enough for any photograph.
_RAMP = np.array([(70, 0, 120), (190, 30, 90), (245, 120, 20), (255, 225, 70)], np.float64)
_QUALITY = 82


def thumbnail(image: Any, side: int | None = SIDE) -> Picture:
    """Return a PIL image or a uint8 array (height, width[, 3]) as a new picture of mode L or RGB, no side longer than
    `side` (None: as large as it is). Nothing but pixels goes along: no EXIF, no comment, no colour profile."""
    found = Image.fromarray(np.squeeze(image)) if isinstance(image, np.ndarray) else image
    if found.mode not in ("L", "RGB"):
        found = found.convert("RGB")
    if side is not None and max(found.size) > side:
        scale = side / max(found.size)
        size = (max(1, round(found.width * scale)), max(1, round(found.height * scale)))
        found = found.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    bare = Image.new(found.mode, found.size)
    bare.paste(found)
    return bare


def encode(picture: Picture) -> str:
    """Return a picture as a ``data:`` URI: PNG or JPEG, whichever is smaller."""
    forms = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": _QUALITY, "optimize": True})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        forms.append((len(buffer.getvalue()), kind, buffer.getvalue()))
    _, kind, blob = min(forms)
    return f"data:image/{kind};base64,{base64.b64encode(blob).decode('ascii')}"


def seen_box(width: int, height: int, spec: InputSpec) -> tuple[float, float, float, float]:
    """Return what a model sees of an image of that size: left, top, right and bottom as shares of its sides."""
    if spec.resize == "squash":
        return 0.0, 0.0, 1.0, 1.0
    scaled_height, scaled_width = scaled_size(height, width, spec)
    across, down = spec.width / scaled_width, spec.height / scaled_height
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def _pixels(begin: float, end: float, side: int) -> slice:
    """Shares of a side as pixels, one at least."""
    first = min(round(begin * side), side - 1)
    return slice(first, max(first + 1, round(end * side)))


def overlay(image: Any, cells: Tensor, spec: InputSpec, side: int | None = SIDE) -> Picture:
    """Return an image in grey with a map (rows, columns) of values 0 .. 1 in colour over what the model saw of it.

    What it did not see (outside of the crop) is darkened.
    """
    picture = thumbnail(image, side)
    if max(picture.size) < SIDE // 2:  # a digit of 8 pixels: enlarged, so that the map has room
        factor = -(-SIDE // (2 * max(picture.size)))
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    left, top, right, bottom = seen_box(picture.width, picture.height, spec)
    columns, rows = _pixels(left, right, picture.width), _pixels(top, bottom, picture.height)
    grey: NDArray[np.float64] = np.repeat(np.asarray(picture.convert("L"), np.float64)[:, :, None], 3, 2)
    shown = grey * 0.35
    size = (columns.stop - columns.start, rows.stop - rows.start)
    spread = Image.fromarray(cells.numpy().astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    heat = np.clip(np.asarray(spread, np.float64), 0.0, 1.0)
    at = heat * (len(_RAMP) - 1)
    low = np.minimum(at.astype(int), len(_RAMP) - 2)
    colour = _RAMP[low] + (at - low)[:, :, None] * (_RAMP[low + 1] - _RAMP[low])
    strength = 0.9 * heat[:, :, None] ** 0.7
    shown[rows, columns] = (1 - strength) * (20 + 0.7 * grey[rows, columns]) + strength * colour
    return Image.fromarray(np.clip(np.rint(shown), 0, 255).astype(np.uint8))
