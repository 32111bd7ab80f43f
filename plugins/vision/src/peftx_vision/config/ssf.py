"""Options of SSF. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peftx.config.adapter import AdapterConfig

__all__ = ["SSFConfig"]


class SSFConfig(AdapterConfig):
    """SSF (Lian et al., 2022): ``gamma * y + beta`` after every linear, convolution and normalisation layer."""

    targets: list[str] = Field(
        default=["attention", "cross_attention", "mlp", "conv", "norm", "embedding.patch", "downsample"],
        description="layers whose output is scaled and shifted; by default all of the trunk",
    )
    init: Literal["normal", "identity"] = Field(
        default="normal",
        description="gamma from N(1, 0.02^2) and beta from N(0, 0.02^2), as in the official code, or 1 and 0",
    )
    without_bias: Literal["skip", "scale"] = Field(
        default="skip",
        description="layers that have no bias to take a shift: leave them as they are, or scale them only",
    )
