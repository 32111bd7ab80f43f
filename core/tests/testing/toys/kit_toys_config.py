"""Configurations of the toys: sound ones, and one for each fault a configuration can have."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_validator

from peftx.config.adapter import AdapterConfig


class ToyConfig(AdapterConfig):
    """No option of its own."""


class SilentConfig(AdapterConfig):
    """An option without a description."""

    strength: float = 1.0


class LossyConfig(AdapterConfig):
    """What is written is not what is read."""

    name: str = Field(default="Plain", description="a name")

    @field_validator("name", mode="before")
    @classmethod
    def _longer(cls, value: Any) -> Any:
        return f"{value}!"


class LooseConfig(AdapterConfig):
    """Takes any option."""

    model_config = ConfigDict(extra="allow", frozen=True)


class WordyConfig(AdapterConfig):
    """A mistake is a whole page."""

    strength: float = Field(default=1.0, description="how much")

    @field_validator("strength", mode="before")
    @classmethod
    def _page(cls, value: Any) -> Any:
        if not isinstance(value, float):
            raise ValueError("first line\nsecond line\nthird line")
        return value
