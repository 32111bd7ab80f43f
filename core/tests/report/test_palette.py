"""The colours hold what their module promises: contrast, and distance to every kind of eye."""

from __future__ import annotations

import itertools
import math

import pytest

from peftx.report import palette

#: What the three kinds of colour blindness see, on linear sRGB (Machado, Oliveira, Fernandes 2009, severity 1).
EYES = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
THEMES = {"light": palette.LIGHT, "dark": palette.DARK}


def linear(colour: str) -> list[float]:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def contrast(a: str, b: str) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05)."""
    low, high = sorted(
        sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (a, b)
    )
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: list[float]) -> tuple[float, ...]:
    """Ottosson 2020, from linear sRGB."""
    first = (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    second = (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    roots = [math.cbrt(max(0.0, sum(m * v for m, v in zip(row, rgb, strict=True)))) for row in first]
    return tuple(sum(m * v for m, v in zip(row, roots, strict=True)) for row in second)


def seen(colour: str, eye: str) -> tuple[float, ...]:
    rgb = linear(colour)
    return oklab([min(1.0, max(0.0, sum(m * v for m, v in zip(row, rgb, strict=True)))) for row in EYES[eye]])


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("eye", EYES)
def test_no_two_series_look_alike(theme: str, eye: str) -> None:
    for a, b in itertools.combinations(palette.COLOURS[theme], 2):
        assert math.dist(seen(a, eye), seen(b, eye)) > 0.08, (a, b)


@pytest.mark.parametrize("theme", THEMES)
def test_series_stand_out_from_the_paper(theme: str) -> None:
    for colour in palette.COLOURS[theme]:
        assert contrast(colour, THEMES[theme]["paper"]) >= 3, colour


@pytest.mark.parametrize("theme", THEMES)
def test_text_is_readable_where_it_stands(theme: str) -> None:
    roles = THEMES[theme]
    for text, grounds in {
        "ink": ("paper", "sunken", "wash", "warn-wash", "bad-wash"),
        "quiet": ("paper", "sunken"),
        "accent": ("paper",),
        "bad": ("paper",),
        "warn": ("paper",),
    }.items():
        for ground in grounds:
            assert contrast(roles[text], roles[ground]) >= 4.5, (text, ground)


def test_colour_and_shape_together_are_unique() -> None:
    looks = {(palette.slot(i), palette.shape(i)) for i in range(56)}
    assert len(looks) == 56


def test_both_themes_have_the_same_roles() -> None:
    assert palette.LIGHT.keys() == palette.DARK.keys()
    assert len(palette.COLOURS["light"]) == len(palette.COLOURS["dark"])
