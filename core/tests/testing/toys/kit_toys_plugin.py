"""What the toys declare: sound methods, and one for each fault."""

from __future__ import annotations

from collections.abc import Iterator

from kit_toys_data import FAULTS as DATA_FAULTS
from kit_toys_task_config import MODEL_FAULTS, TASK_FAULTS

from peftx.plugins import DatasetSpec, MethodSpec, ModelSpec, Needs, Offers, TaskSpec, hookimpl

PEFTX_API = 1

_WEIGHTS = ("linear", "linear_t", "conv1d", "conv2d", "embedding", "packed_attention")
_SOUND = {
    "gain": _WEIGHTS,
    "packed": _WEIGHTS,
    "banked": _WEIGHTS,
    "scheduled": _WEIGHTS,
    "routed": ("linear",),
}
_SOUND["bottleneck"] = ("activation",)
BROKEN = (
    "starts_as not_shifted gradients asleep effect every_site forward merge base_untouched deterministic detach "
    "save_load packing deepcopy side_by_side mixing autocast bf16_base compiled checkpointing ddp counts explain kinds "
    "resume unbound silent_option lossy_option heavy_option loose_option wordy_option"
).split()
_CONFIGS = {
    "silent_option": "kit_toys_config:SilentConfig",
    "lossy_option": "kit_toys_config:LossyConfig",
    "heavy_option": "kit_toys_heavy_config:HeavyConfig",
    "loose_option": "kit_toys_config:LooseConfig",
    "wordy_option": "kit_toys_config:WordyConfig",
}
_GAINS = {"detach", "explain", "kinds", "resume", "unbound"}


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Sound ones first."""
    for name, sites in _SOUND.items():
        yield MethodSpec(
            f"kit.{name}",
            "a sound toy",
            f"kit_toys_sound:{_class(name)}",
            "kit_toys_config:ToyConfig",
            licence="MIT",
            needs=Needs(sites=sites),
        )
    for name in BROKEN:
        yield MethodSpec(
            f"kit.{name}",
            "a toy with one fault",
            f"kit_toys_broken:{_class(name)}{'Gain' if name in _GAINS else ''}",
            _CONFIGS.get(name, "kit_toys_config:ToyConfig"),
            licence="MIT",
            needs=Needs(sites=_WEIGHTS),
        )


@hookimpl
def peftx_datasets() -> Iterator[DatasetSpec]:
    """A sound one first."""
    for fault in ("", *DATA_FAULTS):
        suffix = f"_{fault}" if fault else ""
        yield DatasetSpec(
            f"kit.data{suffix}" if fault else "kit.points",
            "points around three centres",
            f"kit_toys_data:load{suffix}",
            f"kit_toys_data:{'SilentDataConfig' if fault == 'data_config' else 'DataConfig'}",
            licence="CC0",
            source="drawn here",
            synthetic=True,
            locate=f"kit_toys_data:locate{suffix}",
        )


@hookimpl
def peftx_tasks() -> Iterator[TaskSpec]:
    """A sound one first."""
    for fault in ("", *TASK_FAULTS):
        suffix = f"_{fault}" if fault else ""
        yield TaskSpec(
            f"kit.task{suffix}" if fault else "kit.sorting",
            "which centre is a point nearest to",
            f"kit_toys_task:Sorting{suffix}",
            f"kit_toys_task_config:{'SilentTaskConfig' if fault == 'task_config' else 'TaskConfig'}",
            offers=Offers(sites=("conv1d",) if fault == "offers" else ("linear",)),
            default_data="kit.points",
            default_model="kit.net",
            default_method="kit.gain",
            baselines=("core.head",),
        )


@hookimpl
def peftx_models() -> Iterator[ModelSpec]:
    """A sound one first."""
    for fault in ("", *MODEL_FAULTS):
        suffix = f"_{fault}" if fault else ""
        yield ModelSpec(
            f"kit.net{suffix}",
            "a small network",
            f"kit_toys_task:net{suffix}",
            f"kit_toys_task_config:{'LooseNetConfig' if fault == 'model_config' else 'NetConfig'}",
            licence="MIT",
            params=17 if fault == "parameters" else None,
        )
