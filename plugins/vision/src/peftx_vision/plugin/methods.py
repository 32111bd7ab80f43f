"""The methods of the pack. Descriptors only: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import MethodSpec, Needs, hookimpl

__all__ = ["peftx_methods"]

_SNELL_SITES = ("linear", "linear_t", "conv1d", "conv2d", "packed_attention")


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Methods that come from vision; those of core run on every task here as well."""
    yield MethodSpec(
        name="vision.snell",
        summary="SNELL: a sparse update of full rank, made from thin factors by a kernel",
        target="peftx_vision.methods.snell:SNELL",
        config="peftx_vision.config.methods:SNELLConfig",
        paper="arXiv:2411.01800",
        licence="Apache-2.0",
        tags=("sparse",),
        needs=Needs(sites=_SNELL_SITES),
        size="rank",
    )
    yield MethodSpec(
        name="vision.snella",
        summary="SNELLA: SNELL whose maps compete for a shrinking budget of entries",
        target="peftx_vision.methods.snella:SNELLA",
        config="peftx_vision.config.methods:SNELLAConfig",
        paper="arXiv:2510.24037",
        licence="Apache-2.0",
        tags=("sparse", "scheduled"),
        needs=Needs(sites=_SNELL_SITES),
        size="rank",
    )
    yield MethodSpec(
        name="vision.ssf",
        summary="SSF: the output of every layer scaled and shifted by channel; merges exactly",
        target="peftx_vision.methods.ssf:SSF",
        config="peftx_vision.config.ssf:SSFConfig",
        paper="arXiv:2210.08823",
        licence="Apache-2.0",
        tags=("features",),
        needs=Needs(sites=("linear", "linear_t", "conv1d", "conv2d", "packed_attention", "norm")),
    )
    yield MethodSpec(
        name="vision.hydra",
        summary="Hydra: a low-rank branch beside a layer and one behind it; merges exactly",
        target="peftx_vision.methods.hydra:Hydra",
        config="peftx_vision.config.hydra:HydraConfig",
        paper="arXiv:2309.06922",
        licence="Apache-2.0",
        tags=("low-rank",),
        needs=Needs(sites=("linear", "linear_t", "packed_attention")),
        size="rank",
    )
    for depth, where in (("shallow", "in front of the first block"), ("deep", "in front of every block")):
        yield MethodSpec(
            name=f"vision.vpt_{depth}",
            summary=f"VPT, {depth}: trained tokens among those of the image, {where}",
            target=f"peftx_vision.methods.vpt:VPT{depth.capitalize()}",
            config="peftx_vision.config.vpt:VPTConfig",
            paper="arXiv:2203.12119",
            licence="Apache-2.0",
            tags=("tokens",),
            needs=Needs(sites=("activation",)),
            size="prompts",
        )
    yield MethodSpec(
        name="vision.adaptformer",
        summary="AdaptFormer: a bottleneck beside the feed-forward network of every block",
        target="peftx_vision.methods.adaptformer:AdaptFormer",
        config="peftx_vision.config.adaptformer:AdaptFormerConfig",
        paper="arXiv:2205.13535",
        licence="Apache-2.0",
        tags=("bottleneck",),
        needs=Needs(sites=("activation",)),
        size="width",
    )
    yield MethodSpec(
        name="vision.mosa",
        summary="MoSA: a bottleneck split into sparse experts, trained one at a time, merged to one",
        target="peftx_vision.methods.mosa:MoSA",
        config="peftx_vision.config.mosa:MoSAConfig",
        paper="arXiv:2312.02923",
        licence="Apache-2.0",
        tags=("bottleneck", "sparse"),
        needs=Needs(sites=("activation",)),
        size="width",
    )
    yield MethodSpec(
        name="vision.bi_adaptformer",
        summary="Bi-AdaptFormer: AdaptFormer with one to four bits an entry",
        target="peftx_vision.methods.bi_adapter:BiAdaptFormer",
        config="peftx_vision.config.bi_adapter:BiAdaptFormerConfig",
        paper="arXiv:2307.16867",
        licence="Apache-2.0",
        tags=("bottleneck", "quantised"),
        needs=Needs(sites=("activation",)),
        size="width",
    )
    yield MethodSpec(
        name="vision.bi_lora",
        summary="Bi-LoRA: a low-rank update whose factors have one to four bits an entry; merges exactly",
        target="peftx_vision.methods.bi_adapter:BiLoRA",
        config="peftx_vision.config.bi_adapter:BiLoRAConfig",
        paper="arXiv:2307.16867",
        licence="Apache-2.0",
        tags=("low-rank", "quantised"),
        needs=Needs(sites=("linear", "linear_t", "packed_attention")),
        size="width",
    )
    yield MethodSpec(
        name="vision.adaptertune",
        summary="AdapterTune: a bottleneck behind every block, which starts by adding nothing",
        target="peftx_vision.methods.adaptertune:AdapterTune",
        config="peftx_vision.config.adaptertune:AdapterTuneConfig",
        paper="arXiv:2603.14706",
        licence="Apache-2.0",
        tags=("bottleneck",),
        needs=Needs(sites=("activation",)),
        size="rank",
    )
