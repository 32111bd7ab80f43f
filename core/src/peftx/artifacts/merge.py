"""Merging: the adapter becomes part of the weights, and the model is a plain one again.

Merging where nobody looks is where users lose trust: a low-precision base rounds small updates away, and the merged
model quietly answers otherwise. So a merge is measured on a probe, and refused when it changes too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from peftx.adapters.handle import Adapted
from peftx.artifacts.probing import OutputDrift, Probe, compare, run_probe
from peftx.artifacts.weights import SiteDrift, Writer
from peftx.errors import AdapterError, ArtifactError

__all__ = ["MOST_LOST", "TOLERANCES", "MergeReport", "merge"]

#: largest difference of an output, relative to its largest value, by the coarsest dtype that was written
TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}

#: share of the adapter's effect on an output that a merge may lose
MOST_LOST = 0.5


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did, and how far the merged model is from the adapted one."""

    adapters: tuple[str, ...]
    #: coarsest dtype that was written
    dtype: str
    tolerance: float
    outputs: tuple[OutputDrift, ...] = ()
    sites: tuple[SiteDrift, ...] = ()
    #: parameters that shared their values with another before, and no longer do
    untied: tuple[str, ...] = ()
    #: why the merge would have been refused
    objection: str = ""

    @property
    def relative(self) -> float | None:
        """The largest relative difference of an output; None without a probe."""
        return max((output.relative for output in self.outputs), default=None)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return asdict(self)

    def render(self) -> str:
        """Some lines for people."""
        lines = [f"merged {', '.join(self.adapters)} into {self.dtype} weights, {len(self.sites)} sites"]
        for output in self.outputs:
            line = (
                f"{output.name}: differs by {output.max_abs:.3g} at most ({output.relative:.2g} of its largest value; "
                f"one rounding is {output.rounding:.2g}; tolerance {self.tolerance:.2g})"
            )
            if output.lost is not None:
                line += f"; {100 * output.lost:.2g} % of the adapter's effect lost"
            if output.flipped is not None:
                line += f"; {output.flipped} of {output.predictions} predictions changed"
            lines.append(line)
        if not self.outputs:
            lines.append("not compared with the adapted model: no probe was given")
        worst = max(self.sites, key=lambda site: site.lost, default=None)
        if worst is not None and worst.lost > 0:
            lines.append(
                f"the cast to {worst.dtype} lost {100 * worst.lost:.2g} % of the update of {worst.key}, the most of any"
            )
        if self.untied:
            lines.append(f"no longer tied to another parameter: {', '.join(self.untied)}")
        if self.objection:
            lines.append(f"merged all the same, as you forced it: {self.objection}")
        return "\n".join(lines)


def merge(
    adapted: Adapted,
    *names: str,
    probe: Probe | None = None,
    tolerance: float | None = None,
    force: bool = False,
    check: bool = True,
) -> MergeReport:
    """Write adapters into the weights of their model, in place; afterwards it is a plain model without adapters.

    Every changed value is computed in float32 (float64 for a float64 base) from the stored weight and the adapters in
    order, and cast once. Owned parameters replace the base's. Classes and `requires_grad` are again what they were
    before the first `attach`. A tied parameter stays tied where all its holders want the same value; else those that
    want another get their own, and the report names them.

    Args:
        adapted: the handle; it is of no use afterwards.
        names: the adapters, in order; the active ones by default. All that are attached must be among them, because
            the others were trained on weights that will be gone.
        probe: inputs of the model (a tensor, a tuple of arguments, a dict of keyword arguments), or a function of the
            model that returns its outputs. They are compared before and after, in evaluation mode.
        tolerance: largest relative difference of an output; by default `TOLERANCES` of the coarsest dtype among the
            written weights and the outputs. Without a probe nothing is compared.
        force: merge whatever the comparison says; the report has the objection.
        check: False merges bare: no probe, no copies to go back to, no drift.

    Returns:
        The report.

    Raises:
        ArtifactError: the merged model differs by more than the tolerance, or from the adapted one by more than half
            of what the adapter does; an adapter cannot be merged or holds NaN; a value overflows. The model and its
            adapters are then bit for bit what they were.
        AdapterError: no adapter is active, or an attached one is not named.
    """
    names = names or adapted.fused or adapted.active
    _refuse_names(adapted, names)
    if tolerance is not None and not tolerance >= 0:
        raise AdapterError(f"tolerance must be zero or more, got {tolerance}")
    if not check and probe is not None:
        raise AdapterError("a probe is for a checked merge; leave out either probe= or check=False")
    if adapted.fused:
        adapted.activate(*names)
    writer = Writer(adapted, names, keep=check)
    writer.refuse()
    if not check:
        writer.write()
        adapted.detach()
        return MergeReport(names, _name(_coarsest(writer.dtypes)), 0.0, untied=tuple(writer.untied))
    before = adapted.active
    try:
        if names != before:
            adapted.activate(*names)
        reference = base = None
        if probe is not None:
            reference = run_probe(adapted.model, probe)
            with adapted.disabled():
                base = run_probe(adapted.model, probe)
        writer.write()
        outputs: tuple[OutputDrift, ...] = ()
        dtype = _coarsest(writer.dtypes)
        limit = tolerance
        if probe is not None and reference is not None:
            with adapted.disabled():
                outputs = compare(reference, run_probe(adapted.model, probe), base, dtype)
            dtypes = {value.dtype for value in reference.values() if value.dtype in TOLERANCES}
            dtype_of_outputs = _coarsest(writer.dtypes | dtypes)
            limit = TOLERANCES.get(dtype_of_outputs, 0.0) if limit is None else limit
        limit = TOLERANCES.get(dtype, 0.0) if limit is None else limit
        objection = _objection(outputs, limit, dtype, judge_loss=tolerance is None)
        if objection and not force:
            raise ArtifactError(
                f"not merged, and the model is as before: {objection}; merge into a base of a finer dtype, raise the "
                "tolerance, or force it"
            )
    except BaseException:
        writer.restore()
        if names != before:
            adapted.activate(*before)
        raise
    adapted.detach()
    sites = tuple(writer.drift[key] for key in sorted(writer.drift))
    return MergeReport(names, _name(dtype), limit, outputs, sites, tuple(writer.untied), objection)


def _refuse_names(adapted: Adapted, names: Sequence[str]) -> None:
    if not names:
        raise AdapterError(f"no adapter is active; name those to merge: {', '.join(adapted.names)}")
    for name in names:
        adapted.attachment(name)
    if len(set(names)) < len(names):
        raise AdapterError(f"an adapter cannot be merged twice; got {', '.join(names)}")
    left = [name for name in adapted.names if name not in names]
    if left:
        raise AdapterError(
            f"{', '.join(left)} would be left on weights it was not trained on; save and remove it first, or merge it "
            "as well"
        )


def _objection(outputs: Sequence[OutputDrift], limit: float, dtype: torch.dtype, *, judge_loss: bool) -> str:
    for output in outputs:
        if not output.relative <= limit:
            return (
                f"{output.name} would differ from the adapted model's by {output.relative:.2g} of its largest value, "
                f"the tolerance is {limit:.2g} ({_name(dtype)} weights)"
            )
        if judge_loss and output.lost is not None and output.lost > MOST_LOST:
            return (
                f"{output.name} would lose {100 * output.lost:.0f} % of what the adapter does, because "
                f"{_name(dtype)} weights cannot hold so small an update"
            )
    return ""


def _coarsest(dtypes: set[torch.dtype]) -> torch.dtype:
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
