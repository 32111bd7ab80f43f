"""Options of the toy rows. No torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

#: fault -> whether gradient steps train the row it is planted in
FAULTS = {
    "row_config": True,
    "fits": True,
    "fits_wordy": True,
    "fits_nowhere": True,
    "fits_named": True,
    "built": True,
    "built_shared": True,
    "without_samples": True,
    "without_samples_refused": True,
    "trained": True,
    "trained_empty": True,
    "trained_unfitted": False,
    "fit": False,
    "fit_nan": False,
    "fit_foreign": False,
    "fit_draws": False,
    "training_split": False,
    "training_split_chooses": False,
    "training_split_beside": False,
    "answers": True,
    "answers_shape": True,
    "own_answer": True,
    "steady": True,
    "steady_counts": True,
    "gradients": True,
    "gradients_zero": True,
    "learns": True,
    "reload": False,
    "reload_buffer": True,
}


class RowConfig(BaseModel):
    """Options of a row."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden: int = Field(default=4, ge=1, description="width of the hidden layer")


class SilentRowConfig(RowConfig):
    """An option nobody explains."""

    noise: float = 1.0
