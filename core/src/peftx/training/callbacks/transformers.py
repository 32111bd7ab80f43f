"""The callback for Hugging Face `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from peftx.adapters import Adapted
from peftx.artifacts.state import load_state, save_state
from peftx.errors import AdapterError
from peftx.training.callbacks.common import adapted_in, begin, save_adapters, values_of

__all__ = ["TransformersCallback"]

#: of a checkpoint's folder: what is ours, and the name of the schedules' state in it
FOLDER, STATE = "peftx", "schedule"


class TransformersCallback(TrainerCallback):
    """Binds adapters to the optimizer of a `transformers.Trainer`, and saves and resumes them with its checkpoints.

    When training begins it calls ``adapted.bind(optimizer, total_steps)`` with the torch optimizer inside the Trainer's
    wrappers and with ``state.max_steps``, the number of optimizer steps (accumulation, epochs or ``max_steps``
    counted in). A method without a schedule trains without this callback as well; one with a schedule needs it.

    Each checkpoint gets a folder ``peftx`` beside the Trainer's files, one adapter folder inside for each adapter
    (``checkpoint-500/peftx/default``, for `peftx.artifacts.load`) and the state of the schedules. With
    ``trainer.train(resume_from_checkpoint=...)`` the state is found in ``args.resume_from_checkpoint`` or
    ``args.output_dir`` by its step, and taken only if it was written at the very values that were restored.

        adapted = peftx.attach(model, "core.lora", rank=8)
        trainer = Trainer(model, args, train_dataset=data, callbacks=[TransformersCallback(adapted)])

    The Trainer then makes its own optimizer, of every parameter that is trained, with ``args.learning_rate``. For a
    learning rate of the head of its own, or another optimizer, make it from ``adapted.param_groups``:

        groups = adapted.param_groups(lr=1e-3, head_lr=1e-2, weight_decay=0.01)
        trainer = Trainer(..., optimizers=(torch.optim.AdamW(groups), None), callbacks=[TransformersCallback(adapted)])

    A hyperparameter search is bound like any training; its checkpoints get nothing of ours.

    Args:
        adapted: the handle; by default the one adapted model in what the Trainer trains.
        save_adapter: write the adapters beside the Trainer's own files (the schedules' state is always written).
        resume_from: the checkpoint to take the schedules' state from, where it is in none of the places above.

    Raises (when training begins):
        AdapterError: the optimizer lacks a trained parameter; or training goes on from a checkpoint, a schedule runs,
            and its state is not found.
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
        """Bind; the Trainer has restored parameters and optimizer by now."""
        adapted = self._handle(kwargs["model"])

        def find() -> Mapping[str, Any]:
            return self._find(adapted, args, state)

        begin(adapted, kwargs["optimizer"], state.max_steps, find if state.global_step else None)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write ours beside the checkpoint the Trainer has just written."""
        if not args.should_save or state.is_hyper_param_search:
            return
        adapted = self._handle(kwargs["model"])
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}", FOLDER)
        if self.save_adapter:
            save_adapters(adapted, folder)
        schedules = adapted.schedule_state()
        if schedules:
            save_state({"values": values_of(adapted), "schedules": schedules}, folder, STATE)

    def _find(self, adapted: Adapted, args: Any, state: Any) -> Mapping[str, Any]:
        places = [args.resume_from_checkpoint, Path(args.output_dir, f"checkpoint-{state.global_step}")]
        if self.resume_from is not None:
            places = [self.resume_from]
        folders = [Path(place) / FOLDER for place in places if isinstance(place, str | Path)]
        values = values_of(adapted)
        written = [folder for folder in folders if (folder / f"{STATE}.json").is_file()]
        for folder in written:
            found = load_state(folder, STATE)
            if found.get("values") == values:
                return found["schedules"]
        looked = " and ".join(map(str, written or folders))
        raise AdapterError(
            f"training goes on from step {state.global_step}, and the state of the schedules "
            + ("in {} belongs to other values" if written else "is not in {}").format(looked)
            + "; name the checkpoint: TransformersCallback(adapted, resume_from=...)"
        )
