"""Core's own plugin, domain `core`: the methods that belong to no domain and serve as everybody's
baselines, and the trackers that ``--track`` names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peftx.plugins.api import PLUGIN_API
from peftx.plugins.descriptors import MethodSpec, Needs
from peftx.plugins.hookspecs import hookimpl
from peftx.plugins.targets import load_target

PEFTX_API = PLUGIN_API

_WEIGHTS = Needs(
    sites=("linear", "conv1d", "conv2d", "embedding", "linear_t", "packed_attention"),
    objective="",
    context=(),
)


def _method(
    name: str, cls: str, summary: str, paper: str, tags: tuple[str, ...], needs: Needs, size: str = ""
) -> MethodSpec:
    return MethodSpec(
        name=f"core.{name}",
        summary=summary,
        target=f"peftx.adapters.methods.{name}:{cls}",
        config=f"peftx.config.methods:{cls}Config",
        paper=paper,
        licence="Apache-2.0",
        tags=tags,
        needs=needs,
        size=size,
    )


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """The domain-free methods: the baselines, and SHiRA."""
    yield _method("full", "Full", "every weight of the model is trained", "", ("baseline",), Needs())
    yield _method("head", "Head", "only the head is trained (linear probe)", "", ("baseline",), Needs())
    yield _method(
        "bitfit", "BitFit", "only biases and the head are trained", "arXiv:2106.10199", ("baseline",), Needs()
    )
    yield _method(
        "lora",
        "LoRA",
        "low-rank update W + (alpha/r) B A",
        "arXiv:2106.09685",
        ("low-rank",),
        _WEIGHTS,
        "rank",
    )
    yield _method(
        "rslora",
        "RsLoRA",
        "LoRA with the scale alpha/sqrt(r)",
        "arXiv:2312.03732",
        ("low-rank",),
        _WEIGHTS,
        "rank",
    )
    yield _method(
        "dora",
        "DoRA",
        "LoRA on the direction, a trained norm per output row",
        "arXiv:2402.09353",
        ("low-rank",),
        _WEIGHTS,
        "rank",
    )
    yield _method(
        "shira",
        "ShiRA",
        "the values at a fixed, sparse set of each weight's entries",
        "arXiv:2406.13175",
        ("sparse",),
        _WEIGHTS,
        "rank",
    )


@hookimpl
def peftx_run_started(run: Any, resumed: bool) -> Iterator[Any]:
    """Let the trackers of the run listen to it. Of a run without any, nothing of core hears a step."""
    if run.config.track:
        yield from load_target("peftx.runs.tracking:start")(run, resumed)
