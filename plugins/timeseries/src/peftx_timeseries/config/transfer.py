"""Options of zero-shot transfer. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["TransferConfig"]


class TransferConfig(BaseModel):
    """Options of training on one data set and testing on another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(
        default="timeseries.etth1", description="the data set to train and validate on, as --data names it"
    )
    target: str = Field(default="timeseries.etth2", description="the data set to test on, as --data names it")
    source_options: dict[str, Any] = Field(
        default={}, description="options of the source, such as train_fraction=0.1"
    )
    target_options: dict[str, Any] = Field(
        default={}, description="options of the target, such as horizon=18,too_short=drop"
    )

    @field_validator("source", "target")
    @classmethod
    def _from_anywhere(cls, value: str) -> str:
        """A file that is found from here is named so that a run can be repeated from elsewhere; one that is not stands
        below the data root. What has no ending and no folder is a name, as in m4:yearly."""
        name, colon, argument = value.partition(":")
        path = Path(argument).expanduser()
        if not colon or not (path.suffix or len(path.parts) > 1) or not path.exists():
            return value
        return f"{name}:{path.absolute()}"
