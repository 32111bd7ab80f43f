"""Merged checkpoints that other libraries load alone: no peftx where the model goes.

Safetensors everywhere, with one exception that is the reader's: `whisper.load_model` reads nothing but a `torch.save`d
file. What is written for it holds tensors and plain numbers only, so ``weights_only=True`` opens it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from peftx.adapters.handle import Adapted
from peftx.adapters.handle import adapted as handle_of
from peftx.adapters.host import base_class
from peftx.artifacts.merge import MergeReport, merge
from peftx.artifacts.probing import Probe
from peftx.artifacts.writing import new_folder, refuse_taken
from peftx.errors import ArtifactError

__all__ = ["FORMS", "Export", "export_merged", "form_of", "write_model"]


@dataclass(frozen=True, slots=True)
class Export:
    """What was written: the folder, what to load in it, for which library, how, and what the merge did."""

    folder: Path
    file: Path
    form: str
    load: str
    report: MergeReport

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return {
            "folder": str(self.folder),
            "file": str(self.file),
            "form": self.form,
            "load": self.load,
            "report": self.report.to_dict(),
        }


def export_merged(
    adapted: Adapted,
    folder: Path | str,
    *names: str,
    form: str = "auto",
    probe: Probe | None = None,
    tolerance: float | None = None,
    force: bool = False,
) -> Export:
    """Write the merged model in the form its own library loads without peftx. The adapted model stays as it is.

    The merge happens on a copy, so memory for a second model is needed for a while. Beside the checkpoint stands
    ``merge.json``, the report.

    Args:
        adapted: the handle.
        folder: where to; new or empty.
        names: the adapters, in order; the active ones by default. Others that are attached are left out.
        form: one of `FORMS`, or "auto" for the one of the model's own library.
        probe, tolerance, force: as in `merge`.

    Returns:
        What was written, and the line that loads it.

    Raises:
        ArtifactError: the merge was refused, the folder is taken, or the model is not of that form.
    """
    folder = Path(folder).expanduser()
    refuse_taken(folder)
    form = form_of(adapted.model, form)
    names = names or adapted.active
    twin = handle_of(copy.deepcopy(adapted.model))
    for name in twin.names:
        if names and name not in names:
            twin.remove(name)
    twin.activate(*names)
    report = merge(twin, *names, probe=probe, tolerance=tolerance, force=force)
    return write_model(twin.model, folder, report, form)


def write_model(model: nn.Module, folder: Path | str, report: MergeReport, form: str = "auto") -> Export:
    """Write a merged model and the report of its merge.

    Raises:
        ArtifactError: the folder is taken or cannot be written, or the model is not of that form.
    """
    folder = Path(folder).expanduser()
    form = form_of(model, form)
    write, load = _WRITERS[form]
    with new_folder(folder) as place:
        file = write(model, place, report)
        text = json.dumps(report.to_dict(), indent=2) + "\n"
        (place / "merge.json").write_text(text, encoding="utf-8")
    where = folder if file is None else folder / file
    return Export(folder, where, form, load(model, where), report)


def form_of(model: nn.Module, form: str = "auto") -> str:
    """The form a model is written in: the one asked for, if it fits, or that of its library.

    Raises:
        ArtifactError: no such form, or the model is not of it.
    """
    if form != "auto" and form not in FORMS:
        raise ArtifactError(f"no form is called {form!r}; there are auto, {', '.join(FORMS)}")
    own = _own_form(model)
    if form in ("auto", own):
        return own
    if form != "torch":
        raise ArtifactError(
            f"{form} cannot make this {base_class(model).__name__} by itself; its own form is {own}, and torch "
            "always goes"
        )
    return form


def _own_form(model: nn.Module) -> str:
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in base_class(model).__mro__}
    if "transformers.modeling_utils.PreTrainedModel" in names:
        return "transformers"
    if "whisper.model.Whisper" in names:
        return "whisper"
    timm: Any = sys.modules.get("timm")  # a model of timm has brought it
    if (
        timm is not None
        and base_class(model).__module__.startswith("timm.")
        and timm.is_model(_architecture(model))
    ):
        return "timm"
    return "torch"


def _architecture(model: nn.Module) -> str:
    card = getattr(model, "pretrained_cfg", None) or {}
    return str(card.get("architecture") or "")


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, contiguous, with what shares memory written once for each name: a tied model loads both."""
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ArtifactError(f"{key} of the model's state is no tensor, and safetensors hold nothing else")
        state[key] = value.detach().cpu().contiguous().clone()
    return state


def _write_torch(model: nn.Module, place: Path, report: MergeReport) -> str:
    save_file(_state(model), place / "model.safetensors", metadata={"format": "pt"})
    return "model.safetensors"


def _write_transformers(model: Any, place: Path, report: MergeReport) -> None:
    if report.untied and getattr(model.config, "tie_word_embeddings", False):
        # otherwise `from_pretrained` would tie again what the adapter told apart
        model.config.tie_word_embeddings = False
    model.save_pretrained(place)
    if list(place.glob("*.bin")) or not list(place.glob("*.safetensors")):
        raise ArtifactError("this version of transformers wrote no safetensors; upgrade transformers")


def _write_whisper(model: Any, place: Path, report: MergeReport) -> str:
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    checkpoint = {"dims": dataclasses.asdict(model.dims), "model_state_dict": state}
    torch.save(checkpoint, place / "model.pt")
    return "model.pt"


def _load_torch(model: nn.Module, where: Path) -> str:
    return f"model.load_state_dict(safetensors.torch.load_file({str(where)!r}))"


def _load_timm(model: Any, where: Path) -> str:
    classes = getattr(model, "num_classes", None)
    return (
        f"timm.create_model({_architecture(model)!r}, checkpoint_path={str(where)!r}, num_classes={classes})"
    )


def _load_transformers(model: nn.Module, where: Path) -> str:
    return f"transformers.{base_class(model).__name__}.from_pretrained({str(where)!r})"


def _load_whisper(model: nn.Module, where: Path) -> str:
    return f"whisper.load_model({str(where)!r})"


_WRITERS: dict[str, tuple[Callable[..., str | None], Callable[[Any, Path], str]]] = {
    "timm": (_write_torch, _load_timm),
    "transformers": (_write_transformers, _load_transformers),
    "whisper": (_write_whisper, _load_whisper),
    "torch": (_write_torch, _load_torch),
}

#: libraries a merged model can be written for; torch is a state dict for any module
FORMS: tuple[str, ...] = tuple(_WRITERS)
