"""The colours of a page, in light and in dark.

The eight colours of series were found by search: within each theme every pair keeps a distance in OKLab, to normal
vision and to the three kinds of colour blindness, and each stands out from the background by 3:1. The tests compute
both. Colour is never the only difference: each series also has a shape of its own.
"""

from __future__ import annotations

__all__ = ["COLOURS", "DARK", "LIGHT", "SHAPES", "shape", "sheet", "slot"]

#: Roles: paper, raised and sunken surfaces, text, quieter text, lines, and what is good, doubtful and bad.
LIGHT = {
    "paper": "#ffffff",
    "raised": "#ffffff",
    "sunken": "#f6f7f9",
    "ink": "#171a1f",
    "quiet": "#565d68",
    "line": "#dfe3e8",
    "grid": "#e9ecf0",
    "accent": "#0b5cad",
    "wash": "#e9f2fb",
    "warn": "#8a5300",
    "warn-wash": "#fdf4e3",
    "bad": "#b3261e",
    "bad-wash": "#fdeceb",
    "good": "#0f6b3a",
}
DARK = {
    "paper": "#14171c",
    "raised": "#1a1e24",
    "sunken": "#1d2128",
    "ink": "#e8eaed",
    "quiet": "#a3abb8",
    "line": "#313741",
    "grid": "#272d36",
    "accent": "#7cb9f5",
    "wash": "#1a2c40",
    "warn": "#f0b960",
    "warn-wash": "#33290f",
    "bad": "#ff8f86",
    "bad-wash": "#3d1d1b",
    "good": "#6fd39a",
}
COLOURS = {
    "light": ("#0f6cbd", "#c97d43", "#00441f", "#9a3878", "#907bf8", "#6c651f", "#3495a2", "#a96460"),
    "dark": ("#5aa9f0", "#df9a54", "#b6fed7", "#9e4f80", "#7962dd", "#f2e32f", "#4edaed", "#d15e49"),
}
SHAPES = ("circle", "square", "diamond", "up", "down", "plus", "cross")


def slot(series: int) -> int:
    """Which of the colours a series has."""
    return series % len(COLOURS["light"])


def shape(series: int) -> str:
    """The mark of a series: with its colour it is unique among 56."""
    return SHAPES[(series + series // len(COLOURS["light"])) % len(SHAPES)]


def sheet() -> str:
    """Custom properties for both themes: the reader's choice wins over the system's, and print is light."""
    light, dark = _rules(LIGHT, COLOURS["light"]), _rules(DARK, COLOURS["dark"])
    series = "".join(f".s{i}{{--s:var(--c{i})}}" for i in range(len(COLOURS["light"])))
    return (
        f":root{{color-scheme:light;{light}}}"
        f':root[data-theme="dark"]{{color-scheme:dark;{dark}}}'
        f'@media (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{color-scheme:dark;{dark}}}}}'
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}{series}"
    )


def _rules(roles: dict[str, str], colours: tuple[str, ...]) -> str:
    named = {**roles, **{f"c{i}": colour for i, colour in enumerate(colours)}}
    return "".join(f"--{name}:{value};" for name, value in named.items())
