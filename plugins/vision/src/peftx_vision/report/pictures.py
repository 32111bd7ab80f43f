"""The panel of single images: the surest mistakes, and where the evidence for some predictions lies.

Torch-free: it reads the pictures that classification leaves in samples.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from peftx.report import Panel, RunSource
from peftx.report.markup import Html, join, tag
from peftx.report.parts import figure

__all__ = ["pictures"]

#: A picture as this pack writes it: anything else in the file is no picture.
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")

#: Images of no more pixels a side are enlarged without blurring them.
FEW = 32

_MAPS = (
    "In colour: what speaks for the predicted class (integrated gradients, Sundararajan et al. 2017, on ways from "
    "noise to the image; yellow is the most in this image). It tells where the score comes from, not whether that is a "
    "good reason. Dark edges are outside of what the model sees."
)

Item = Mapping[str, Any]


def pictures(source: RunSource) -> Panel | None:
    """Contact sheet of the most confident mistakes, and maps; None where a run left no pictures (``gallery 0``)."""
    method = next((name for name in source.names if source.samples.get(name)), None)
    if method is None:
        return None
    split = "test" if "test" in source.samples[method] else "val"
    held = source.samples[method].get(split, {})
    mistakes, hits = _items(held.get("mistakes")), _items(held.get("hits"))
    mapped = [one for one in (*mistakes, *hits) if _is_picture(one.get("map"))]
    if not mistakes and not mapped:
        return None
    wrong = _wrong(source, method, split)
    where = {"test": "test", "val": "validation"}[split]
    body = []
    if mistakes:
        of = f" of {wrong:,}" if wrong is not None and wrong > len(mistakes) else ""
        title = (
            f"{len(mistakes)}{of} {'mistake' if len(mistakes) == 1 else 'mistakes'}, the most confident first"
        )
        body.append(figure(title, tag("div", *(_card(source, one) for one in mistakes), class_="sheet")))
    else:
        body.append(tag("p", f"No image of the {where} split was mistaken."))
    if mapped:
        cards = tag("div", *(_pair(source, one) for one in mapped), class_="sheet")
        body.append(figure("Where predictions come from", cards, _MAPS))
    left_out = held.get("left_out")
    shown = len(mistakes) + len([one for one in mapped if one not in mistakes])
    note = (
        f"{method} on the {where} split. This page holds small copies of {shown} images of the data set"
        f"{f' ({left_out})' if isinstance(left_out, str) and left_out else ''}; peftx report --no-samples writes it "
        "without them, and a run with --task.gallery 0 keeps none."
    )
    return Panel("Images", tag("div", *body, class_="sheets"), note)


def _items(found: Any) -> list[Item]:
    """The entries that have a picture and whole numbers for their classes."""
    if not isinstance(found, list):
        return []
    return [
        one
        for one in found
        if isinstance(one, Mapping)
        and _is_picture(one.get("image"))
        and all(
            isinstance(one.get(key), int) and not isinstance(one.get(key), bool)
            for key in ("index", "label", "predicted")
        )
    ]


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and _PICTURE.fullmatch(value) is not None


def _wrong(source: RunSource, method: str, split: str) -> int | None:
    """How many mistakes there are in all, as far as the run counted them."""
    row = next((row for row in source.rows if row.get("method") == method), {})
    scores = source.scores(row, split)
    n, correct = scores.get("n"), scores.get("correct")
    return int(n - correct) if isinstance(n, int | float) and isinstance(correct, int | float) else None


def _card(source: RunSource, one: Item) -> Html:
    true, predicted = _short(source, one["label"]), _short(source, one["predicted"])
    return tag(
        "figure",
        _picture(one["image"], f"{true} taken for {predicted}", one),
        tag("figcaption", tag("span", true), tag("span", "→ ", tag("b", predicted), _share(one))),
        class_="card",
        data_tip=_tip(source, one),
        tabindex="0",
    )


def _pair(source: RunSource, one: Item) -> Html:
    true, predicted = _short(source, one["label"]), _short(source, one["predicted"])
    right = one["label"] == one["predicted"]
    told = f"{true}, recognised" if right else f"{true} taken for {predicted}"
    line: Sequence[object] = (
        [tag("span", tag("b", true), _share(one)), tag("span", "right")]
        if right
        else [tag("span", true), tag("span", "→ ", tag("b", predicted), _share(one))]
    )
    both = tag(
        "div",
        _picture(one["image"], told, one),
        _picture(one["map"], f"where the evidence for {predicted} lies", one),
        class_="two",
    )
    return tag(
        "figure",
        both,
        tag("figcaption", *line),
        class_="card wide-card",
        data_tip=_tip(source, one),
        tabindex="0",
    )


def _picture(uri: str, text: str, one: Item) -> Html:
    size = one.get("size")
    few = isinstance(size, list) and all(isinstance(n, int) and n <= FEW for n in size)
    return tag("img", src=uri, alt=text, class_="pixels" if few else None)


def _share(one: Item) -> Html | None:
    probability = one.get("probability")
    if not isinstance(probability, int | float) or isinstance(probability, bool):
        return None
    # 0.998 must not be shown as 100 %
    shown = f"{100 * probability:.0f}" if probability < 0.995 else f"{min(100 * probability, 99.99):.2f}"
    return join([" ", tag("small", f"{shown} %")])


def _tip(source: RunSource, one: Item) -> str:
    lines = [f"true class: {_name(source, one['label'])}", f"predicted: {_name(source, one['predicted'])}"]
    if isinstance(one.get("probability"), int | float):
        lines.append(f"probability: {one['probability']:.4f}")
    place = one.get("file")
    lines.append(str(place) if isinstance(place, str) else f"image {one['index']} of the split")
    return "\n".join(lines)


def _short(source: RunSource, index: int) -> str:
    """A class's name in the room below a picture; the whole one stands in its tip."""
    name = _name(source, index)
    return name if len(name) <= 28 else name[:27] + "…"


def _name(source: RunSource, index: int) -> str:
    classes = source.classes
    return classes[index] if 0 <= index < len(classes) else str(index)
