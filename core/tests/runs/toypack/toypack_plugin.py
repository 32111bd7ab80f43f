"""A whole domain in miniature: points around class centres, a two-layer network, and methods that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from peftx.errors import DataError
from peftx.plugins import DatasetSpec, MethodSpec, ModelSpec, Needs, Offers, TaskSpec, hookimpl

PEFTX_API = 1


class TaskConfig(BaseModel):
    """Options of the task."""

    model_config = ConfigDict(extra="forbid")
    explode_at: int = Field(default=0, description="make the loss NaN at this forward pass")


class DataConfig(BaseModel):
    """Options of the data."""

    model_config = ConfigDict(extra="forbid")
    classes: int = Field(default=3, ge=1)
    spread: float = Field(default=1.0, gt=0)
    absent: bool = False
    test: bool = True


class Reading(BaseModel):
    """How a file of a new point is read."""

    model_config = ConfigDict(extra="forbid")
    separator: str | None = Field(default=None, description="what stands between two numbers")


class AskConfig(BaseModel):
    """What may be asked of a prediction."""

    model_config = ConfigDict(extra="forbid")
    scale: float = Field(default=1.0, gt=0, description="multiply the point by this")
    runners_up: bool = Field(default=False, description="name all classes, the best first")
    data: Reading = Field(default_factory=Reading)


class FileConfig(BaseModel):
    """Options of data that take a path."""

    model_config = ConfigDict(extra="forbid")
    path: Path


class ModelConfig(BaseModel):
    """Options of the network."""

    model_config = ConfigDict(extra="forbid")
    width: int = Field(default=16, ge=1)
    depth: int = Field(default=1, ge=1)
    unused: bool = False
    batch_norm: bool = False
    weights: Path | None = None


class LinesConfig(BaseModel):
    """Options of the models that are compared with."""

    model_config = ConfigDict(extra="forbid")
    hidden: int = Field(default=4, ge=1)


def locate(config: DataConfig, ctx: object) -> None:
    """Pretend to look for files."""
    if config.absent:
        raise DataError("toy.points: points.bin is not there; put it into the data folder")


def known(name: str) -> str | bool:
    """Accept free:ANYTHING."""
    return "toypack_plugin:ModelConfig" if name.startswith("free:") else False


@hookimpl
def peftx_tasks() -> Iterator[TaskSpec]:
    """One task."""
    yield TaskSpec(
        name="toy.sorting",
        summary="which centre is a point nearest to",
        target="toypack_task:Sorting",
        config="toypack_plugin:TaskConfig",
        offers=Offers(sites=("linear",)),
        default_data="toy.points",
        default_model="toy.net",
        default_method="core.lora",
        models="toypack_plugin:known",
        predict_config="toypack_plugin:AskConfig",
    )


@hookimpl
def peftx_datasets() -> Iterator[DatasetSpec]:
    """Generated points, and a parametric set."""
    yield DatasetSpec(
        name="toy.points",
        summary="points",
        target="toypack_task:load_points",
        config="toypack_plugin:DataConfig",
        locate="toypack_plugin:locate",
        synthetic=True,
    )
    yield DatasetSpec(
        name="toy.file",
        summary="points of a file",
        target="toypack_task:load_file",
        config="toypack_plugin:FileConfig",
        parametric=True,
    )


@hookimpl
def peftx_models() -> Iterator[ModelSpec]:
    """One network."""
    yield ModelSpec("toy.net", "a small network", "toypack_task:build_net", "toypack_plugin:ModelConfig")


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Methods that do not fit the task, each for another reason."""
    config = "peftx.config.methods:LoRAConfig"
    target = "peftx.adapters.methods.lora:LoRA"
    yield MethodSpec("toy.convonly", "x", target, config, needs=Needs(sites=("conv2d",)))
    yield MethodSpec("toy.distil", "x", target, config, needs=Needs(objective="distillation"))
    yield MethodSpec("toy.camera", "x", target, config, needs=Needs(context=("camera",)))
    yield MethodSpec("toy.replay", "x", target, config, kind="procedure")
    yield MethodSpec("toy.lines", "x", "toypack_models:Lines", "toypack_plugin:LinesConfig", kind="model")
    for name, target in (("means", "Means"), ("first", "First"), ("forgetful", "Forgetful")):
        yield MethodSpec(
            f"toy.{name}",
            "x",
            f"toypack_models:{target}",
            "toypack_plugin:LinesConfig",
            kind="model",
            trained=False,
        )
