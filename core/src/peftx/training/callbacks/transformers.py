"""The callback for Hugging Face `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from peftx.adapters import Adapted
from peftx.artifacts.state import load_state, save_state
from peftx.errors import AdapterError
from peftx.training.callbacks.common import (
    adapted_in,
    begin,
    moments_of,
    restore,
    same,
    save_adapters,
    values_of,
)

__all__ = ["TransformersCallback"]

#: of a checkpoint's folder: what is ours, and the name of the state in it
FOLDER, STATE = "peftx", "state"


class TransformersCallback(TrainerCallback):
    """Binds adapters to the optimizer of a `transformers.Trainer`, and saves and resumes them with its checkpoints.

    When training begins it calls ``adapted.bind(optimizer, total_steps)`` with the torch optimizer inside the Trainer's
    wrappers and with ``state.max_steps``, the number of optimizer steps (accumulation, epochs or ``max_steps``
    counted in). A method without a schedule trains without this callback as well; one with a schedule needs it.

    Each checkpoint gets a folder ``peftx`` beside the Trainer's files: one adapter folder for each adapter
    (``checkpoint-500/peftx/default``, for `peftx.artifacts.load`), and the state to go on from, which is the values of
    the adapters and the state of their schedules. With ``trainer.train(resume_from_checkpoint=...)`` it is found in
    ``args.resume_from_checkpoint`` or ``args.output_dir`` by its step, and taken only if it belongs to the values, or
    to the optimizer's moments, that the Trainer has restored. The best model's adapters are put back from there as
    well. Neither relies on the weights the Trainer restores: for models whose parameters have other names in files
    than in memory it restores none of them, and says so in a warning only.

        adapted = peftx.attach(model, "core.lora", rank=8)
        trainer = Trainer(model, args, train_dataset=data, callbacks=[TransformersCallback(adapted)])

    The Trainer then makes its own optimizer, of every parameter that is trained, with ``args.learning_rate``. For a
    learning rate of the head of its own, or another optimizer, make it from ``adapted.param_groups``:

        groups = adapted.param_groups(lr=1e-3, head_lr=1e-2, weight_decay=0.01)
        trainer = Trainer(..., optimizers=(torch.optim.AdamW(groups), None), callbacks=[TransformersCallback(adapted)])

    A hyperparameter search is bound like any training; its checkpoints get nothing of ours.

    Args:
        adapted: the handle; by default the one adapted model in what the Trainer trains.
        save_adapter: write the adapter folders (the state is always written).
        resume_from: the checkpoint to go on from, where it is in none of the places above.

    Raises (when training begins):
        AdapterError: the optimizer lacks a trained parameter; or training goes on from a checkpoint whose state is not
            found, or is of other adapters.
    """

    def __init__(
        self,
        adapted: Adapted | None = None,
        *,
        save_adapter: bool = True,
        resume_from: Path | str | None = None,
    ) -> None:
        self.adapted = adapted
        self.save_adapter = save_adapter
        self.resume_from = resume_from

    def _handle(self, model: Any) -> Adapted:
        return self.adapted or adapted_in(model)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bind; the Trainer has restored its optimizer by now."""
        adapted, optimizer = self._handle(kwargs["model"]), kwargs["optimizer"]
        found = self._find(adapted, optimizer, args, state) if state.global_step else None
        begin(adapted, optimizer, state.max_steps, found)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write ours beside the checkpoint the Trainer has just written."""
        if not args.should_save or state.is_hyper_param_search:
            return
        adapted = self._handle(kwargs["model"])
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}", FOLDER)
        if self.save_adapter:
            save_adapters(adapted, folder)
        found = {
            "moments": moments_of(kwargs["optimizer"]),
            "adapters": values_of(adapted),
            "schedules": adapted.schedule_state(),
        }
        save_state(found, folder, STATE)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the adapters of the best model back, if the Trainer was asked to."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            folder = Path(state.best_model_checkpoint, FOLDER)
            if (folder / f"{STATE}.json").is_file():
                restore(self._handle(kwargs["model"]), load_state(folder, STATE)["adapters"])

    def _find(self, adapted: Adapted, optimizer: Any, args: Any, state: Any) -> Mapping[str, Any]:
        if self.resume_from is not None:
            return load_state(Path(self.resume_from, FOLDER), STATE)
        places = [args.resume_from_checkpoint, Path(args.output_dir, f"checkpoint-{state.global_step}")]
        folders = [Path(place) / FOLDER for place in places if isinstance(place, str | Path)]
        written = [folder for folder in folders if (folder / f"{STATE}.json").is_file()]
        moments = moments_of(optimizer)
        for folder in written:
            found = load_state(folder, STATE)
            if (moments and found["moments"] == moments) or same(adapted, found["adapters"]):
                return found
        what = "the one in {} is of another training" if written else "there is none in {}"
        raise AdapterError(
            f"training goes on from step {state.global_step} and needs the state that TransformersCallback wrote then; "
            + what.format(" and ".join(map(str, written or folders)))
            + ": name the checkpoint, TransformersCallback(adapted, resume_from=...)"
        )
