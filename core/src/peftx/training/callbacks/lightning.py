"""The callback for the Trainer of Lightning, of the package `lightning` or `pytorch_lightning`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError:
    from pytorch_lightning.callbacks import Callback

from peftx.adapters import Adapted
from peftx.errors import AdapterError
from peftx.training.callbacks.common import adapted_in, begin, has_schedule, save_adapters

__all__ = ["LightningCallback"]


class LightningCallback(Callback):
    """Binds adapters to the optimizer of a Lightning Trainer, and saves and resumes their schedules with its
    checkpoints.

    When training starts it calls ``adapted.bind(optimizer, total_steps)`` with the number of optimizer steps that the
    Trainer will take (accumulation, epochs, ``max_steps`` and limits counted in). A method without a schedule trains
    without this callback as well; one with a schedule needs it. The state of the schedules travels in Lightning's own
    checkpoints, as the state of this callback, and ``trainer.fit(..., ckpt_path=...)`` goes on from there.

        class Classifier(L.LightningModule):
            def __init__(self, adapted):
                super().__init__()
                self.model, self.adapted = adapted.model, adapted

            def configure_optimizers(self):
                return torch.optim.AdamW(self.adapted.param_groups(lr=1e-3, weight_decay=0.01))

        adapted = peftx.attach(model, "core.lora", rank=8)
        trainer = L.Trainer(max_epochs=3, callbacks=[LightningCallback(adapted)])
        trainer.fit(Classifier(adapted), data)

    Args:
        adapted: the handle; by default the one adapted model in the LightningModule.
        total_steps: number of optimizer steps, where the Trainer cannot know it: manual optimization, an accumulation
            that changes from epoch to epoch, data without length.
        save_to: a folder in which each checkpoint of the Trainer leaves the adapters alone, as
            ``save_to/step-500/NAME``, for `peftx.artifacts.load`. They stay when the Trainer removes its checkpoint.

    Raises (when training starts):
        AdapterError: no optimizer holds every trained parameter; a schedule runs and the number of steps cannot be
            known; or training goes on from a checkpoint without the state of the schedules.
    """

    def __init__(
        self,
        adapted: Adapted | None = None,
        *,
        total_steps: int | None = None,
        save_to: Path | str | None = None,
    ) -> None:
        self.adapted = adapted
        self.total_steps = total_steps
        self.save_to = save_to
        self._bound: Adapted | None = None
        self._restored: dict[str, Any] | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget what an earlier call of the Trainer restored."""
        self._restored = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Bind; the Trainer has restored parameters and optimizers by now."""
        adapted = self.adapted or adapted_in(pl_module)
        trained = {id(parameter) for parameter in adapted.parameters()}
        optimizers = [
            optimizer
            for optimizer in trainer.optimizers
            if trained <= {id(p) for group in optimizer.param_groups for p in group["params"]}
        ]
        if not trainer.optimizers:
            raise AdapterError("this LightningModule configures no optimizer, so there is nothing to bind to")
        total = self._total(trainer, pl_module)
        if total is None and has_schedule(adapted):
            raise AdapterError(
                "an adapter changes over the course of training, and Lightning does not know how many optimizer steps "
                "that will take: give LightningCallback(adapted, total_steps=N)"
            )

        state = None
        if trainer.global_step and has_schedule(adapted):
            state = self._restored
            if state is None:
                raise AdapterError(
                    f"training goes on from step {trainer.global_step}, and what it goes on from holds no state of the "
                    "schedules; go on from a checkpoint that was written with LightningCallback"
                )
        begin(adapted, [*optimizers, *trainer.optimizers][0], total, state)
        self._bound = adapted

    def _total(self, trainer: Any, pl_module: Any) -> int | None:
        if self.total_steps is not None:
            return self.total_steps
        changing = any(type(one).__name__ == "GradientAccumulationScheduler" for one in trainer.callbacks)
        if changing or not pl_module.automatic_optimization:
            return None
        total = trainer.estimated_stepping_batches
        return int(total) if 0 < total < float("inf") else None

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedules."""
        schedules = {} if self._bound is None else self._bound.schedule_state()
        return {"schedules": schedules} if schedules else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the optimizer is there."""
        self._restored = state_dict

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Leave the adapters alone beside the checkpoint, where asked to."""
        if self.save_to is not None and trainer.is_global_zero:
            adapted = self.adapted or adapted_in(pl_module)
            save_adapters(adapted, Path(self.save_to) / f"step-{trainer.global_step}")
