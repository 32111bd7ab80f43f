"""Whether Triton kernels can run here, and if not, why. Imports torch and Triton only when asked."""

from __future__ import annotations

import functools
import importlib.util
import os

__all__ = ["interpreting", "why_no_triton"]

#: compute capability the kernels are compiled for, at least
OLDEST = (8, 0)


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels, in numpy and on any device: for tests, thousands of times slower.

    Triton reads the variable when it is imported, so it must be set before Python starts.
    """
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


@functools.cache
def why_no_triton() -> str:
    """Return why no Triton kernel can run in this process, in a clause; empty when they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (it is published for Linux only)"
    if interpreting():
        return ""
    import torch

    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA GPU is visible"
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST:
        return (
            f"the GPU's compute capability is {capability[0]}.{capability[1]}, the kernels need "
            f"{OLDEST[0]}.{OLDEST[1]}"
        )
    return ""
