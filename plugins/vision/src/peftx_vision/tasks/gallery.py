"""What the page of a run shows of single images: the surest mistakes, some right answers, and where both come from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from peftx.errors import DataError
from peftx_vision.data.images import open_image
from peftx_vision.tasks import pixels as px
from peftx_vision.tasks.saliency import evidence, grid_of
from peftx_vision.tasks.thumbnails import encode, overlay, thumbnail

if TYPE_CHECKING:
    from peftx_vision.tasks.classification import Classification

__all__ = ["evidence_of", "gallery", "illustrate"]

#: Characters of all pictures of a run together, and seconds that its maps may take.
CHARACTERS, SECONDS = 380_000, 6.0
#: Pixels of the longer side of an image that is explained on its own.
LARGE = 512
#: Of the images with a map, one in so many is a right answer.
RIGHT = 3

Autocast = Callable[[], AbstractContextManager[Any]]
Item = dict[str, Any]


class _Late(Exception):
    """The maps have had their time."""


def gallery(
    task: Classification,
    model: nn.Module,
    split: str,
    details: Mapping[str, Any],
    *,
    device: torch.device | str,
    autocast: Autocast,
) -> dict[str, Any]:
    """Return pictures of the images that `details` names, JSON-ready; {} when the task's `gallery` is 0.

    ``mistakes`` and ``hits``: as in the details, with ``image`` (a ``data:`` URI of at most 96 pixels a side), its
    ``size``, ``file`` where the image has one, and for some ``map``, the image in grey with the evidence for the
    predicted class in colour. ``left_out``: why there are fewer than were asked for, if so. All pictures together are
    bounded, and the maps end after some seconds: a model too slow for a map of its first image has none.
    """
    wanted, maps = task.config.gallery, task.config.saliency
    if not wanted:
        return {}
    right = min(max(1, maps // RIGHT), len(details.get("hits", ()))) if maps else 0
    mistakes = [dict(one) for one in details.get("mistakes", ())[:wanted]]
    hits = [dict(one) for one in details.get("hits", ())[:right]]
    source = task.data.splits[split]
    files = getattr(source, "files", None)
    room = CHARACTERS
    for kept in (mistakes, hits):
        for at, one in enumerate(kept):
            picture = thumbnail(source[one["index"]][0])
            one["image"], one["size"] = encode(picture), list(picture.size)
            if files is not None:
                one["file"] = str(files[one["index"]])
            room -= len(one["image"])
            if room < 0:
                del kept[at:]
                break
    found: dict[str, Any] = {"mistakes": mistakes, "hits": hits}
    if len(mistakes) < min(wanted, len(details.get("mistakes", ()))):
        found["left_out"] = "the pictures would make the page too large"
    if maps:
        chosen = [*mistakes[: max(0, maps - len(hits))], *hits]
        told = _draw_maps(task, model, chosen, room, split=split, device=device, autocast=autocast)
        if told:
            found.setdefault("left_out", told)
    return found


def _draw_maps(
    task: Classification,
    model: nn.Module,
    chosen: Sequence[Item],
    room: int,
    *,
    split: str,
    device: torch.device | str,
    autocast: Autocast,
) -> str:
    """Add a map to the items; return why some have none."""
    # on a processor the time of this thread: what else the machine does must not decide how many maps there are
    clock = time.thread_time if torch.device(device).type == "cpu" else time.monotonic
    deadline = clock() + SECONDS

    def ask() -> None:
        if clock() > deadline:
            raise _Late

    for one in _in_turn(chosen):
        image = task.data.splits[split][one["index"]][0]
        pixels = px.prepare(image, task.spec, f"image {one['index']} of the {split} split")
        try:
            cells = evidence_of(
                task, model, pixels, one["predicted"], device=device, autocast=autocast, ask=ask
            )
        except _Late:
            return f"maps end after {SECONDS:g} seconds, and this model takes long"
        drawn = encode(overlay(image, cells, task.spec))
        room -= len(drawn)
        if room < 0:
            return "the pictures would make the page too large"
        one["map"] = drawn
    return ""


def _in_turn(chosen: Sequence[Item]) -> Iterator[Item]:
    """Mistakes and right answers alternately, so that a slow model has a map of both."""
    wrong = [one for one in chosen if one["label"] != one["predicted"]]
    right = [one for one in chosen if one["label"] == one["predicted"]]
    for index in range(max(len(wrong), len(right))):
        yield from wrong[index : index + 1]
        yield from right[index : index + 1]


def illustrate(
    task: Classification,
    model: nn.Module,
    inputs: Sequence[Path],
    answers: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    device: torch.device | str,
    autocast: Autocast,
) -> list[Path]:
    """Write NAME.png for each file: the image, and beside it in grey with the evidence for its class in colour.

    Raises:
        DataError: an image cannot be read, or a picture not be written.
    """
    written: list[Path] = []
    for path, answer in zip(inputs, answers, strict=True):
        image = open_image(Path(path))
        pixels = px.prepare(image, task.spec, f"image {path}")
        predicted = list(task.data.classes).index(answer["class"])
        cells = evidence_of(task, model, pixels, predicted, device=device, autocast=autocast)
        drawn = overlay(image, cells, task.spec, LARGE)
        both = Image.new("RGB", (2 * drawn.width, drawn.height))
        both.paste(thumbnail(image, LARGE).resize(drawn.size, Image.Resampling.NEAREST), (0, 0))
        both.paste(drawn, (drawn.width, 0))
        # two folders may hold a file of one name
        number, out = 1, folder / f"{Path(path).name}.png"
        while out in written:
            number += 1
            out = folder / f"{Path(path).name}-{number}.png"
        try:
            both.save(out)
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror or error}") from error
        written.append(out)
    return written


def evidence_of(
    task: Classification,
    model: nn.Module,
    pixels: Tensor,
    predicted: int,
    *,
    device: torch.device | str,
    autocast: Autocast,
    ask: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return what speaks for a class in prepared pixels (channels, H, W), uint8: (rows, columns), 0 .. 1.

    The score is ``z_c - mean_k z_k`` of the logits z: a number that all classes have in common says nothing. `ask` is
    called before each forward and may raise to stop.
    """
    spec = task.spec

    def score(inputs: Tensor) -> Tensor:
        ask()
        with autocast():
            logits = task.forward(model, {"images": inputs})
        return logits[:, predicted] - logits.mean(1)

    image = px.to_input(pixels[None], spec)[0].to(device)
    return evidence(score, image, grid_of(spec.height, spec.width, spec.patch))
