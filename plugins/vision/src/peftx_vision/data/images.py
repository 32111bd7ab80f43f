"""The one place where an image file becomes pixels: for training, for evaluation and for `peftx predict`
alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftx.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EXTENSIONS", "open_image", "signature"]

#: File name endings that count as images, lower case.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
_WHITE = (255, 255, 255, 255)


def open_image(path: Path) -> Image.Image:
    """Return the image in `path` as an 8-bit RGB PIL image, upright.

    The first frame of an animation. EXIF rotation is applied. 16-bit greys are scaled to 8 bits, not clipped.
    What is transparent becomes white: dropping alpha would show whatever colour lies hidden under it.
    Palettes and CMYK are converted; colour profiles are not applied.

    Raises DataError, naming the file, when it is missing, is no image of the formats above, is damaged, or is
    so large that it may be a decompression bomb.
    """
    from PIL import Image, ImageOps

    try:
        # Only the decoders named here are tried: Pillow has dozens more, some of which run other programs.
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise DataError(f"no such image: {path}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, but an image file was expected") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} is larger than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; scale it down"
        ) from error
    except Exception as error:  # it depends on the decoder: OSError, SyntaxError, zlib.error
        kinds = ", ".join(_FORMATS)
        raise DataError(
            f"cannot read the image {path} ({_cause(error)}): expected an undamaged {kinds} file; "
            "remove or replace it"
        ) from error


def signature(head: bytes) -> bool:
    """Say whether the first bytes of a file are those of one of the formats that `open_image` reads."""
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    )


def _cause(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):
        # PNGs of 16 bits a pixel; convert("RGB") would clip everything above 255 to white
        import numpy as np

        grey = np.rint(np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, _WHITE)
        return Image.alpha_composite(white, colours).convert("RGB")
    return image.convert("RGB")
