"""Laws of coming and going: detached, saved, copied, and beside other adapters."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

import peftx
from peftx.adapters.handle import Adapted
from peftx.artifacts.load import load
from peftx.artifacts.manifest import MANIFEST, TENSORS
from peftx.artifacts.save import save
from peftx.errors import AdapterError, ArtifactError
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.trial import Trial, far, near, perturb, refused

__all__ = ["deepcopy", "detach", "mixing", "packing", "save_load", "side_by_side"]


def _picture(model: nn.Module) -> dict[str, Any]:
    """Everything that tells a module tree from another, but for the values."""
    return {
        "classes": [(path, type(module)) for path, module in model.named_modules()],
        "training modes": [module.training for module in model.modules()],
        "parameters or their requires_grad": [
            (key, p.requires_grad, id(p)) for key, p in model.named_parameters(remove_duplicate=False)
        ],
        "buffers": [(key, id(b)) for key, b in model.named_buffers()],
        "attributes": [sorted(module.__dict__) for module in model.modules()],
        "children": [list(module._modules) for module in model.modules()],
        "keys of the state dict": list(model.state_dict()),
        "text": repr(model),
    }


@law("method", each_case=True, needs=["base_untouched"])
def detach(trial: Trial) -> None:
    """Detaching gives back the model: values, requires_grad, classes, keys, modes, outputs."""
    model = trial.build()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 3 != 0)
    output = trial.run(model).detach()
    values = {key: value.clone() for key, value in model.state_dict().items()}
    before = _picture(model)
    adapted = trial.attach(model)
    perturb(adapted.parameters())
    trial.other(model)
    adapted.activate("default")
    optimizer = trial.bind(adapted)
    model.train()
    trial.step(model, optimizer)
    model.eval()
    demand(adapted.detach() is model, "detach returned another model")
    after = _picture(model)
    for what in before:
        demand(after[what] == before[what], f"{what} of the detached model are not what they were")
    for key, value in model.state_dict().items():
        demand(torch.equal(value, values[key]), f"the value of {key} is not what it was")
    demand(torch.equal(trial.run(model), output), "the detached model computes something else than before")


_UNNAMED = "a file names its method, so only one that a plugin declares can be read again"


@law("method", each_case=True)
def save_load(trial: Trial) -> None:
    """A saved adapter comes back bit for bit, in as many bytes as it counts, and a partial one is refused."""
    if not trial.subject.registered:
        raise NotApplicable(_UNNAMED)
    model = trial.build()
    adapted = trial.attach(model)
    perturb(adapted.parameters())
    wanted = trial.run(model).detach()
    with tempfile.TemporaryDirectory() as folder:
        path = save(adapted, Path(folder) / "adapter")
        held = sum(tensor.nbytes for tensor in read_tensors((path / TENSORS).read_bytes()).values())
        said = adapted.counts().stored_bytes
        demand(held == said, f"the counts say {said:,} bytes are stored, the file holds {held:,}")
        loaded = _loaded(trial, path)
        stored, found = adapted.tensors(), loaded.tensors()
        demand(found.keys() == stored.keys(), "the loaded adapter has other tensors")
        packed = adapted.packers()
        for place, tensor in stored.items():
            if place[0] not in packed:
                demand(torch.equal(found[place], tensor), f"{place[1]} at {place[0]} came back changed")
        near(trial.run(loaded.model), wanted, 0.0, "the loaded model and the saved one")
        _refuses_less(trial, path)


def _loaded(trial: Trial, folder: Path) -> Adapted:
    torch.manual_seed(101)  # whatever a method draws may not matter any more
    fresh = trial.build()
    torch.manual_seed(103)
    return load(fresh, folder)


@law("method", each_case=True, needs=["save_load"])
def packing(trial: Trial) -> None:
    """What is stored packed computes the same, is packed again to the same bytes, trains on, and can be kept whole."""
    if not trial.subject.registered:
        raise NotApplicable(_UNNAMED)
    model = trial.build()
    adapted = trial.attach(model)
    if not adapted.packers():
        raise NotApplicable("it stores what it trains")
    perturb(adapted.parameters())
    before = {place: tensor.detach().clone() for place, tensor in adapted.tensors().items()}
    with tempfile.TemporaryDirectory() as name:
        folders = [save(adapted, Path(name) / "first")]
        for place, tensor in adapted.tensors().items():
            demand(
                torch.equal(tensor, before[place]),
                f"saving changed {place[1]} at {place[0]}, which is trained",
            )
        loaded = _loaded(trial, folders[0])
        folders.append(save(loaded, Path(name) / "second"))
        first, second = ({f: (folder / f).read_bytes() for f in (MANIFEST, TENSORS)} for folder in folders)
        for file in first:
            demand(first[file] == second[file], f"saved, loaded and saved again, {file} is another")
        whole = _loaded(trial, save(adapted, Path(name) / "whole", packed=False)).tensors()
        for place, tensor in whole.items():
            demand(
                torch.equal(tensor, before[place]), f"kept whole, {place[1]} at {place[0]} came back changed"
            )
    optimizer = trial.bind(loaded)
    start = {place: tensor.detach().clone() for place, tensor in loaded.tensors().items()}
    for _ in range(trial.method.wakes_within):
        trial.step(loaded.model, optimizer)
    packed = adapted.packers()
    for place, tensor in loaded.tensors().items():
        if place[0] in packed and tensor.requires_grad and not trial.inert(place[0]):
            moved = not torch.equal(tensor.detach(), start[place])
            demand(moved, f"loaded, {place[1]} at {place[0]} trains no further")


def _refuses_less(trial: Trial, folder: Path) -> None:
    """Take one tensor out of a saved adapter, keep its checksum right, and see it refused."""
    tensors = read_tensors((folder / TENSORS).read_bytes())
    if not tensors:
        return
    tensors.pop(max(tensors))
    payload = write_tensors(tensors)
    (folder / TENSORS).write_bytes(payload)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["tensor_file_sha256"] = hashlib.sha256(payload).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    model = trial.build()
    refused(ArtifactError, "an adapter without one of its tensors", lambda: load(model, folder))
    demand(not hasattr(model, "_peftx_board"), "a refused adapter stayed on the model")


@law("method", each_case=True, needs=["unbound"])
def deepcopy(trial: Trial) -> None:
    """A deep copy is another model, its adapter trained apart and bound to nothing."""
    model = trial.build()
    adapted = trial.attach(model)
    perturb(adapted.parameters())
    if trial.scheduled:
        trial.bind(adapted)
    before = trial.run(model).detach()
    twin = copy.deepcopy(model)
    other = peftx.adapted(twin)
    near(trial.run(twin), before, 0.0, "the copy and its original")
    shared = {id(t) for t in adapted.tensors().values()} & {id(t) for t in other.tensors().values()}
    demand(not shared, f"the copy shares {len(shared)} tensors with its original")
    perturb(other.parameters(), seed=8)
    demand(far(trial.run(twin), before) > 1e-5, "moving the copy's parameters does not change the copy")
    near(trial.run(model), before, 0.0, "the original before and after its copy was moved")
    if trial.scheduled:
        twin.train()
        refused(AdapterError, "training an unbound copy", lambda: trial.run(twin))
        twin.eval()
    other.detach()
    near(trial.run(model), before, 0.0, "the original before and after its copy was detached")


def _alone(trial: Trial, adapted: Adapted, names: tuple[str, ...]) -> dict[str | None, Tensor]:
    found: dict[str | None, Tensor] = {}
    with adapted.disabled():
        found[None] = trial.run(adapted.model).detach()
    for name in names:
        adapted.activate(name)
        found[name] = trial.run(adapted.model).detach()
    return found


@law("method", each_case=True)
def side_by_side(trial: Trial) -> None:
    """Beside core.lora each adapter gives what it gives alone, and on top of it the other still shows."""
    model = trial.build()
    base = trial.run(model).detach()
    adapted = trial.attach(model, "mine")
    perturb(adapted.parameters())
    single = trial.run(model).detach()
    trial.other(model)
    alone = _alone(trial, adapted, ("mine", "other"))
    near(alone[None], base, 1e-6, "with both switched off, the model and its base")
    near(alone["mine"], single, 1e-6, "the adapter beside another one and alone")
    adapted.activate("other", "mine")
    first = trial.run(model).detach()
    near(first, first, 0.0, "both together")
    if _covered(adapted):
        return
    # what stands below may be scaled, turned or added to, but not lost
    perturb(adapted.parameters("other"), seed=37)
    moved = far(trial.run(model), first)
    demand(
        moved > 1e-5, f"on top of core.lora, moving the LoRA changed the output by {moved:.2g}: it is ignored"
    )
    adapted.remove("other")
    adapted.activate("mine")
    near(trial.run(model), single, 1e-6, "the adapter after the other one was removed, and alone")


def _covered(adapted: Adapted) -> bool:
    """Whether the method owns, whole, every parameter that the other adapter changes."""
    whole = {(s.module, s.weight) for s in adapted.attachment("mine").owned if s.rows is None}
    return {(s.module, s.weight) for s in adapted.attachment("other").plan} <= whole


_MIXES: tuple[tuple[str | None, ...], ...] = (
    ("mine", None, "other", "mine"),
    ("other", None, None, "mine"),
    ("mine",) * 4,
)


@law("method", each_case=True)
def mixing(trial: Trial) -> None:
    """In a mixed batch every sample gets what its own adapter gives it alone."""
    model = trial.build()
    adapted = trial.attach(model, "mine")
    perturb(adapted.parameters())
    trial.other(model)
    alone = _alone(trial, adapted, ("mine", "other"))
    adapted.train_only("mine", "other")
    for ids in _MIXES:
        wanted = torch.stack([alone[name][sample] for sample, name in enumerate(ids)])
        try:
            with adapted.per_sample(list(ids)):
                mixed = trial.run(model)
        except AdapterError as error:
            if trial.case.unmixed:  # may be refused, never be wrong
                raise NotApplicable(f"refused: {trial.case.unmixed}") from None
            raise LawError(f"the batch {_spelled(ids)} was refused: {error}") from error
        near(mixed, wanted, 5e-5, f"the batch {_spelled(ids)} and each sample's adapter alone")


def _spelled(ids: tuple[str | None, ...]) -> str:
    return ", ".join(name or "base" for name in ids)
