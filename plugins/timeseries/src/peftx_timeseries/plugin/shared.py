"""What the descriptors of several tasks have in common. No torch, no numpy."""

from __future__ import annotations

from peftx.plugins import MethodSpec, Offers

__all__ = ["HOSTS", "compared"]

#: What a language model between two projections has for methods.
HOSTS = Offers(sites=("linear", "linear_t", "norm", "embedding", "parameter", "activation"))


def compared(
    name: str, summary: str, target: str, config: str, *tasks: str, trained: bool = False, paper: str = ""
) -> MethodSpec:
    """A row to compare with on `tasks`; `target` and `config` are below the package: ``methods.naive:RepeatLast``."""
    return MethodSpec(
        name=f"timeseries.{name}",
        summary=summary,
        target=f"peftx_timeseries.{target}",
        config=f"peftx_timeseries.{config}",
        kind="model",
        paper=paper,
        licence="Apache-2.0",
        tags=("baseline",),
        trained=trained,
        tasks=tasks,
    )
