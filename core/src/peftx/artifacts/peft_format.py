"""The adapter format of Hugging Face PEFT: two files, the names in them, and which settings change the function.

A folder holds ``adapter_config.json`` and ``adapter_model.safetensors``. Keys of the latter are ``base_model.model.``,
the path of a module, and a suffix. Facts by reading and running PEFT 0.21.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from peftx.adapters.slot import is_reserved
from peftx.errors import ArtifactError

__all__ = [
    "CONFIG",
    "PICKLE",
    "PREFIX",
    "SUFFIXES",
    "TENSORS",
    "check_config",
    "exactly",
    "pattern_value",
    "targets_of",
]

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."

#: suffix of a key -> the slot it fills
SUFFIXES: dict[str, str] = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding_A",
    ".lora_embedding_B": "embedding_B",
    ".lora_magnitude_vector": "m",
    ".shira_weight": "v",
    ".shira_indices": "indices",
}

#: settings that say who wrote the file, where it goes (the tensors say that, too) or how it was trained
_INERT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",  # how A and B were made; what it did to the base shows in init_lora_weights
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
_READ: dict[str, frozenset[str]] = {
    "LORA": frozenset(
        {
            "alpha_pattern",
            "init_lora_weights",
            "lora_alpha",
            "lora_dropout",
            "modules_to_save",
            "r",
            "rank_pattern",
            "use_dora",
            "use_rslora",
        }
    ),
    "SHIRA": frozenset({"init_weights", "mask_type", "modules_to_save", "r", "random_seed"}),
}
#: settings that change what the adapter computes, and the values that do not
_NEUTRAL: dict[str, tuple[Any, ...]] = {"bias": ("none",), "loftq_config": (None, {})}
_NOTHING: tuple[Any, ...] = (None, False, [], {})

#: ways of starting that leave the base weights as they are
_STARTS: tuple[Any, ...] = (True, False, None, "gaussian", "eva", "orthogonal")


def check_config(config: Any, where: str) -> Mapping[str, Any]:
    """Accept a configuration whose function is known; refuse any other by the name of the setting.

    Raises:
        ArtifactError: not a table, another type of adapter, or a setting that changes what the adapter computes.
    """
    if not isinstance(config, dict):
        raise ArtifactError(f"{where} is not an adapter's configuration; give a folder that PEFT wrote")
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in _READ:
        raise ArtifactError(
            f"{where} describes a {str(kind)[:40]} adapter; LORA (with use_dora and use_rslora) and SHIRA are read"
        )
    for name, value in config.items():
        if name in _INERT or name in _READ[kind]:
            continue
        if not any(value is neutral or value == neutral for neutral in _NEUTRAL.get(name, _NOTHING)):
            raise ArtifactError(
                f"{where} sets {name[:60]!r} to {str(value)[:60]!r}, which changes what the adapter computes and is "
                "not supported; train or convert it without that"
            )
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool | str | None) or start not in _STARTS:
        raise ArtifactError(
            f"{where} sets init_lora_weights to {str(start)[:40]!r}, which changed the base weights when training "
            "began; let PEFT convert it to a plain LoRA first (path_initial_model_for_weight_conversion)"
        )
    return config


def exactly(path: str) -> str:
    """A regular expression of PEFT's rank and alpha patterns that one module path alone matches."""
    return f"^{re.escape(path)}"


def pattern_value(patterns: Mapping[str, Any], path: str, default: Any) -> Any:
    """A module's own rank or alpha: the first pattern that matches the end of its path, as in PEFT.

    Raises:
        ArtifactError: a pattern is no regular expression.
    """
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", path):
                return value
        except re.error as error:
            raise ArtifactError(
                f"{pattern[:60]!r} in {CONFIG} is not a regular expression ({error})"
            ) from None
    return default


def targets_of(model: nn.Module, paths: Sequence[str]) -> list[str] | str:
    """What `target_modules` says: paths, or a regular expression where those would also find other modules.

    PEFT looks for the end of a path.
    """
    wanted = set(paths)
    for path, _ in model.named_modules():
        parts = path.split(".")
        ends = {".".join(parts[i:]) for i in range(len(parts))}
        if path not in wanted and ends & wanted and not is_reserved(path):
            return "|".join(re.escape(one) for one in paths)
    return list(paths)
