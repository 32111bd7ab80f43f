"""Toy rows to compare with: sound ones, one for each fault, and the two tasks of their domain."""

from __future__ import annotations

from collections.abc import Iterator

from kit_rows_config import FAULTS

from peftx.plugins import MethodSpec, Offers, TaskSpec, hookimpl

PEFTX_API = 1

#: sound rows -> whether gradient steps train them
SOUND = {"lines": True, "normed": True, "means": False, "first": False, "asleep": True}


@hookimpl
def peftx_methods() -> Iterator[MethodSpec]:
    """Sound ones first."""
    for name, trained in SOUND.items():
        yield MethodSpec(
            f"rows.{name}",
            "a sound row",
            f"kit_rows:{name.capitalize()}",
            "kit_rows_config:RowConfig",
            kind="model",
            licence="MIT",
            trained=trained,
            tasks=("rows.dreaming",) if name == "asleep" else (),
        )
    for fault, trained in FAULTS.items():
        yield MethodSpec(
            f"rows.bad_{fault}",
            "a row with one fault",
            f"kit_rows:Bad_{fault}",
            f"kit_rows_config:{'SilentRowConfig' if fault == 'row_config' else 'RowConfig'}",
            kind="model",
            licence="MIT",
            trained=trained,
            tasks=("rows.sorting", "rows.ranking") if fault == "fits_named" else (),
        )


@hookimpl
def peftx_tasks() -> Iterator[TaskSpec]:
    """One that rows are for, one that they refuse, and one without data."""
    for name in ("sorting", "ranking", "dreaming"):
        yield TaskSpec(
            f"rows.{name}",
            "which centre is a point nearest to",
            f"kit_rows:{name.capitalize()}",
            "kit_toys_task_config:TaskConfig",
            offers=Offers(sites=("linear",)),
            default_data="" if name == "dreaming" else "kit.points",
            default_model="kit.net",
            baselines=("core.head",),
        )
