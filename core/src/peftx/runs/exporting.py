"""What leaves a run: its merged model, its adapter as HF PEFT reads it; and what comes in, an adapter PEFT wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from peftx import artifacts
from peftx.adapters import Adapted
from peftx.adapters import adapted as handle_of
from peftx.artifacts.writing import new_folder, refuse_taken
from peftx.config.run import RunConfig
from peftx.plugins.registry import Registry
from peftx.runs.planning import preflight
from peftx.runs.reload import rebuild, reopen, without_data
from peftx.runs.session import load_data, make_task
from peftx.tasks.contract import Batch, Task, in_context
from peftx.training.seeds import seed_all

__all__ = ["export_run", "import_peft", "peft_run"]

#: samples of the validation split a merge is measured on, at most
PROBE = 64


def export_run(
    folder: Path | str,
    out: Path | str,
    registry: Registry | None = None,
    *,
    form: str = "auto",
    tolerance: float | None = None,
    force: bool = False,
    data_root: Path | None = None,
    device: str | None = None,
) -> artifacts.Export:
    """Merge the adapter of a run into its model, measured on a batch of the validation split, and write it to `out`.

    The comparison is made in the precision of the weights, whatever the run trained in.

    Raises:
        RunError: the folder is no finished run.
        ArtifactError: the merge was refused, or `out` is taken. Nothing is written then.
    """
    refuse_taken(Path(out).expanduser())
    plan, record = reopen(Path(folder), registry, data_root=data_root, device=device)
    task = make_task(plan, load_data(plan))
    task.prepare([task.probe_split])
    backend, model = rebuild(plan, task, Path(folder))
    form = artifacts.form_of(model, form)
    batch = next(iter(task.batches(task.probe_split, min(PROBE, int(record["eval_batch_size"])))))
    batch = {name: value.to(backend.device) for name, value in batch.items()}
    report = artifacts.merge(handle_of(model), probe=_Probe(task, batch), tolerance=tolerance, force=force)
    return artifacts.write_model(model, out, report, form)


class _Probe:
    """One batch of a task as a function of the model."""

    def __init__(self, task: Task, batch: Batch) -> None:
        self.task, self.batch = task, batch

    def __call__(self, model: nn.Module) -> Any:
        with in_context(self.task, model, self.batch):
            return self.task.forward(model, self.batch)


def peft_run(folder: Path | str, out: Path | str, registry: Registry | None = None) -> Path:
    """Write the adapter of a run as a folder of HF PEFT; needs the base model, not the data.

    Raises:
        RunError: the folder is no finished run.
        ArtifactError: PEFT has no way to say what the adapter does, or `out` is taken.
    """
    refuse_taken(Path(out).expanduser())
    plan, record = reopen(Path(folder), registry, device="cpu", locate=False)
    _, model = rebuild(plan, make_task(plan, without_data(record)), Path(folder))
    name = None if plan.model is not None else plan.model_name
    return artifacts.to_peft(handle_of(model), Path(out).expanduser(), base_model=name)


def import_peft(
    folder: Path | str, out: Path | str, config: RunConfig, registry: Registry | None = None
) -> Adapted:
    """Read an adapter PEFT wrote onto the model of a configuration, and save it to `out` as one of ours.

    Raises:
        ArtifactError: the folder cannot be read, does not fit the model, or `out` is taken.
    """
    out = Path(out).expanduser()
    refuse_taken(out)
    plan = preflight(config, registry)
    seed_all(plan.config.seed, "model")
    model = make_task(plan, load_data(plan)).build_model()
    adapted = artifacts.from_peft(model, folder)
    with new_folder(out) as place:
        artifacts.save(adapted, place)
    return adapted
