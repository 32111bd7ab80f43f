"""What the toys declare: sound methods, and one for each fault."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import MethodSpec, Needs, hookimpl

PEFTX_API = 1

_WEIGHTS = ("linear", "linear_t", "conv1d", "conv2d", "embedding", "packed_attention")
_SOUND = {"gain": _WEIGHTS, "banked": _WEIGHTS, "scheduled": _WEIGHTS, "routed": ("linear",)}
_SOUND["bottleneck"] = ("activation",)
BROKEN = (
    "starts_as not_shifted gradients asleep effect every_site forward merge base_untouched deterministic detach "
    "save_load deepcopy side_by_side mixing autocast bf16_base compiled checkpointing ddp counts explain kinds resume "
    "unbound silent_option lossy_option heavy_option loose_option wordy_option"
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
