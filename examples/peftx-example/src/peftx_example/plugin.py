"""What peftx-example brings. Light: it is imported by every `peftx list`, so no torch here."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import MethodSpec, Needs, hookimpl

PEFTX_API = 1


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """The three methods."""
    yield MethodSpec(
        name="example.vera",
        summary="two trained vectors a layer, between random matrices that all layers share",
        target="peftx_example.vera:Vera",
        config="peftx_example.config:VeraConfig",
        paper="arXiv:2310.11454",
        licence="Apache-2.0",
        tags=("low-rank", "shared"),
        needs=Needs(sites=("linear", "linear_t", "packed_attention")),
    )
    yield MethodSpec(
        name="example.router",
        summary="low-rank experts mixed token by token, with an optional hint for each sample",
        target="peftx_example.router:Router",
        config="peftx_example.config:RouterConfig",
        paper="arXiv:2309.05444",
        licence="Apache-2.0",
        tags=("low-rank", "routed"),
        needs=Needs(sites=("linear", "linear_t")),
    )
    yield MethodSpec(
        name="example.bottleneck",
        summary="a bottleneck after every block whose hidden units are pruned while it trains",
        target="peftx_example.bottleneck:Bottleneck",
        config="peftx_example.config:BottleneckConfig",
        paper="arXiv:1902.00751",
        licence="Apache-2.0",
        tags=("insert", "pruned"),
        needs=Needs(sites=("activation",)),
    )
