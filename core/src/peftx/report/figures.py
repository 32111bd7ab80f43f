"""Figures as text: one unit for a whole column, as many digits as are worth reading, a dash for what is not known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["DASH", "amount", "column", "exact", "finite", "score", "spread", "unit_of"]

DASH = "–"
_BYTES = (("B", 1.0), ("KiB", 2.0**10), ("MiB", 2.0**20), ("GiB", 2.0**30), ("TiB", 2.0**40))
_SECONDS = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0))


def finite(value: Any) -> float | None:
    """The value as a number, or None when it is none: absent, text, a truth value, infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def exact(value: Any) -> str:
    """All digits of a figure, as its record has them."""
    return repr(value) if finite(value) is not None else ""


def unit_of(values: Sequence[float], kind: str) -> tuple[str, float]:
    """The unit, and its size, in which a column of bytes or seconds reads best: the smallest value is at least one, and
    the largest has at most five digits before the point."""
    units = {"bytes": _BYTES, "seconds": _SECONDS}[kind]
    positive = [value for value in values if value > 0]
    if not positive:
        return units[0] if kind == "bytes" else ("s", 1.0)
    low, high = min(positive), max(positive)
    fits = [unit for unit in units if unit[1] <= low] or [units[0]]
    large = [unit for unit in units if high / unit[1] < 1e5]
    if kind == "seconds" and not low < 1:  # minutes only when all are long: 61.2 s reads well beside 7.4 s
        fits = [unit for unit in fits if unit[1] * 10 <= low or unit[1] <= 1]
    found = fits[-1]
    return found if not large or found in large else large[0]


def column(values: Sequence[Any], kind: str) -> tuple[str, list[str]]:
    """A whole column: its unit, and one text for each value, all with the same number of decimals.

    `kind`: count, bytes, seconds, percent, gap (a difference in per cent, with its sign), ratio, rate (a learning rate)
    or plain.
    """
    numbers = [finite(value) for value in values]
    known = [number for number in numbers if number is not None]
    unit, size, places = "", 1.0, 0
    if kind in ("bytes", "seconds"):
        unit, size = unit_of(known, kind)
        places = 0 if unit == "B" else _places([number / size for number in known], 3)
    elif kind in ("percent", "gap"):
        places = 2
    elif kind == "ratio":
        unit, places = "×", 2
    elif kind == "plain":
        places = _places(known, 3)

    def show(number: float | None) -> str:
        if number is None:
            return DASH
        if kind == "rate":
            return f"{number:g}"
        if kind == "gap":
            return f"{number:+.2f}".replace("-", "−")
        text = f"{number / size:,.{places}f}"
        if number and not text.strip(
            "-0.,"
        ):  # something is not nothing: one digit of it, in a column of large ones
            digits = -math.floor(math.log10(abs(number / size)))
            return f"{number / size:.{digits}f}" if digits <= 4 else f"{number / size:.0e}"
        return text

    return unit, [show(number) for number in numbers]


def amount(value: Any, kind: str) -> str:
    """One figure with its unit: ``294 KiB``, ``66,826``, ``98.05 %``."""
    number = finite(value)
    if number is None:
        return DASH
    if kind == "seconds" and number >= 600:
        minutes, hours = round(number / 60), int(number // 3600)
        return f"{hours} h {minutes - 60 * hours:02d} min" if hours else f"{minutes} min"
    unit, (text,) = column([number], kind)
    unit = {"percent": "%"}.get(kind, unit)
    return f"{text} {unit}".replace(" ×", "×").strip()


def score(value: Any, unit: str = "") -> str:
    """A metric: two decimals in per cent, otherwise four significant digits; the unit goes into the heading."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number:.2f}" if unit == "%" else f"{number:.4g}"


def spread(mean: Any, sd: Any, unit: str = "") -> str:
    """A mean with its deviation, both to the second digit of the deviation; the mean alone without one."""
    known = finite(sd)
    if finite(mean) is None or known is None:
        return score(mean, unit)
    places = 2 if unit == "%" or not known else max(0, min(6, 1 - math.floor(math.log10(abs(known)))))
    return f"{mean:.{places}f} ± {known:.{places}f}"


def _places(values: Sequence[float], digits: int) -> int:
    """Decimals that give the middle value `digits` significant digits, six at most; whole numbers need none."""
    sizes = [abs(value) for value in values if value]
    if not sizes or all(float(size).is_integer() for size in sizes):
        return 0
    # not the smallest: one tiny value must not give all others six decimals
    typical = sorted(sizes)[len(sizes) // 2]
    return max(0, min(6, digits - 1 - math.floor(math.log10(typical))))
