"""Writing effective weights into base parameters, in place, so that it can be taken back bit for bit.

Values are computed in float32 (float64 for a float64 base) and cast once, at the end. A parameter that several modules
share is changed for all of them when all of them want the same; otherwise those that want another get their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters.base import effective_rows, from_canonical, to_canonical
from peftx.adapters.delta import Delta, Owned, Statistic
from peftx.adapters.fused import Kept
from peftx.adapters.handle import Adapted
from peftx.adapters.slot import BANK, SLOT, Slot
from peftx.artifacts.sparse import entries_of
from peftx.errors import ArtifactError
from peftx_kernels import SparseTable, sparse_switch

#: path of a module, the module, and the name it has for the parameter
Holder = tuple[str, nn.Module, str]

__all__ = ["SiteDrift", "Writer", "effective_values"]


@dataclass(frozen=True, slots=True)
class SiteDrift:
    """What became of one site's update.

    `update` is ||new - old|| / ||old||, None where the old value was zero. `lost` is the norm of what the cast to
    `dtype` rounded away, over the norm of the update: 0 where nothing was cast, near 1 where a bfloat16 base swallows
    the update.
    """

    key: str
    dtype: str
    update: float | None
    lost: float


class Writer:
    """One merge: `refuse`, `write`, then perhaps `restore`. With `keep` there are copies of everything that changed."""

    def __init__(self, adapted: Adapted, names: Sequence[str], *, keep: bool) -> None:
        self.adapted, self.names, self.keep = adapted, tuple(names), keep
        self.drift: dict[str, SiteDrift] = {}
        #: names of parameters that share their values no longer
        self.untied: list[str] = []
        self.dtypes: set[torch.dtype] = set()
        #: what was there before
        self.kept = Kept()
        # walking through a model costs about as much as a small merge, so it is done once, and past the adapters
        self._holders: dict[int, list[Holder]] = {}
        self._work: list[tuple[str, nn.Module, list[Delta]]] = []
        for path, module in _modules("", adapted.model, set()):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    self._holders.setdefault(id(parameter), []).append((path, module, name))
            slot = module._modules.get(SLOT)
            if isinstance(slot, Slot):
                deltas = slot.deltas(self.names)
                if deltas:
                    self._work.append((path, module, deltas))

    def refuse(self) -> None:
        """Refuse adapters that cannot become weights, or hold NaN or Inf.

        Raises:
            ArtifactError: such an adapter, or a model that is sharded or on the meta device.
        """
        for path, module, deltas in self._work:
            for delta in deltas:
                if not delta.merges:
                    raise ArtifactError(
                        f"{self._method(delta)} at {delta.site.key} cannot be merged: its update depends on the input "
                        "or acts on activations, so no weight has it; keep the adapter attached"
                    )
            for name in _changed(deltas):
                parameter = module._parameters.get(name)
                if parameter is not None and (parameter.is_meta or hasattr(parameter, "placements")):
                    state = "is on the meta device" if parameter.is_meta else "is sharded"
                    raise ArtifactError(
                        f"{_key(path, name)} {state}, so nothing can be written into it; merge in one whole model"
                    )
            for delta in deltas:
                self._refuse_values(delta, delta.site.key)
        banks: Any = self.adapted.model._modules.get(BANK)
        for name in self.names:
            if banks is not None and banks._modules.get(name) is not None:
                self._refuse_values(banks._modules[name], "the shared bank")

    def _refuse_values(self, holder: nn.Module, where: str) -> None:
        for name, tensor in holder.state_dict(keep_vars=True).items():
            whole = tensor.detach()
            if whole.is_floating_point() and not torch.isfinite(whole.sum()) and not whole.isfinite().all():
                raise ArtifactError(
                    f"{name} of {where} in the adapter holds NaN or Inf; nothing was merged: train again with a lower "
                    "learning rate, or load a sound adapter"
                )

    def _method(self, delta: Delta) -> str:
        for name in self.names:
            attachment = self.adapted.attachment(name)
            if delta.site in tuple(attachment.sites):
                return attachment.method_name
        return type(delta).__name__

    def take_sparse(self) -> SparseTable | None:
        """Take what only changes some entries of weights out of the work, as a table; None where there is no such.

        A weight that is tied, or that changes in another way as well, is left to `write`.
        """
        targets: list[Tensor] = []
        entries: list[tuple[Tensor, Tensor]] = []
        left: list[tuple[str, nn.Module, list[Delta]]] = []
        for path, module, deltas in self._work:
            rest = deltas
            for name in dict.fromkeys(delta.site.weight for delta in deltas):
                group = [delta for delta in rest if delta.site.weight == name]
                others = [delta for delta in rest if delta.site.weight != name]
                parameter = module._parameters.get(name)
                tied = len(self._holders.get(id(parameter), ())) != 1
                found = (
                    None
                    if parameter is None or tied or name in _changed(others)
                    else entries_of(group, parameter)
                )
                if parameter is not None and found is not None:
                    targets.append(parameter)
                    entries.append(found)
                    rest = others
            if rest:
                left.append((path, module, rest))
        self._work = left
        self.dtypes.update(target.dtype for target in targets)
        if not targets:
            return None
        indices, values = zip(*entries, strict=True)
        return SparseTable(targets, indices, values)

    def write(self) -> None:
        """Write every effective value into the base.

        Raises:
            ArtifactError: a merged value overflows its dtype (checked with `keep` only).
        """
        if not self.keep:
            sparse_switch(None, self.take_sparse())
        shared: dict[int, list[Holder]] = {}
        device = next((p.device for p in self.adapted.model.parameters()), torch.device("cpu"))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):  # float32 means float32
            for path, module, deltas in self._work:
                self._module(path, module, deltas, shared)
            for group in shared.values():
                self._shared(group)

    def restore(self) -> None:
        """Take everything back, bit for bit. Needs `keep`."""
        self.kept.restore()

    def _module(
        self, path: str, module: nn.Module, deltas: list[Delta], shared: dict[int, list[Holder]]
    ) -> None:
        on_weights = []
        for delta in deltas:
            if isinstance(delta, Statistic):
                buffer: Any = module._buffers[delta.site.weight]
                self._kept(buffer)
                buffer.copy_(delta.value)
            else:
                on_weights.append(delta)
        changed = _changed(on_weights)
        parameters: dict[str, Any] = module._parameters
        self.dtypes.update(parameters[name].dtype for name in changed)
        tied = [name for name in changed if len(self._holders[id(parameters[name])]) > 1]
        for name in tied:
            shared.setdefault(id(parameters[name]), self._holders[id(parameters[name])])
        if not tied and not self.keep and _in_place(on_weights, parameters):
            return
        for name, value in effective_values(on_weights, parameters).items():
            if name in changed and name not in tied:
                self._put(parameters[name], value, _key(path, name), on_weights)

    def _put(self, parameter: Tensor, value: Tensor, key: str, deltas: Sequence[Delta]) -> None:
        if not self.keep:
            parameter.copy_(value)
            return
        old = self._kept(parameter)
        parameter.copy_(value)
        self._measure(old, value, parameter, key, deltas)

    def _shared(self, group: list[Holder]) -> None:
        """Modules that hold one parameter together: written once if all agree, else each to its own."""
        parameter: Any = group[0][1]._parameters[group[0][2]]
        wanted: list[tuple[Tensor | None, list[Delta]]] = []
        for _, module, name in group:
            slot: Any = module._modules.get(SLOT)
            deltas = [] if slot is None else slot.deltas(self.names)
            deltas = [delta for delta in deltas if not isinstance(delta, Statistic)]
            value = effective_values(deltas, module._parameters)[name] if name in _changed(deltas) else None
            wanted.append((value, deltas))
        first = wanted[0][0]
        if first is not None and all(value is not None and torch.equal(value, first) for value, _ in wanted):
            self._put(parameter, first, _key(group[0][0], group[0][2]), wanted[0][1])
            return
        made: list[tuple[Tensor, nn.Parameter]] = []
        for (path, module, name), (value, deltas) in zip(group, wanted, strict=True):
            if value is None:
                continue
            own = next((new for other, new in made if torch.equal(other, value)), None)
            if own is None:
                own = nn.Parameter(value.to(parameter.dtype), requires_grad=parameter.requires_grad)
                made.append((value, own))
            parameters: dict[str, Any] = module._parameters
            self.kept.parameter(module, name)
            parameters[name] = own
            self.untied.append(_key(path, name))
            if self.keep:
                self._measure(parameter, value, own, _key(path, name), deltas)

    def _kept(self, tensor: Tensor) -> Tensor:
        return self.kept.tensor(tensor) if self.keep else tensor

    def _measure(self, old: Tensor, value: Tensor, new: Tensor, key: str, deltas: Sequence[Delta]) -> None:
        if not torch.isfinite(new).all():
            raise ArtifactError(
                f"the merged {key} overflows {str(new.dtype).removeprefix('torch.')}; nothing was merged: merge into "
                "a base of another dtype"
            )
        for delta in deltas:
            site = delta.site
            if key.rpartition(".")[2] not in {site.weight, site.bias if delta.changes_bias else site.weight}:
                continue
            parts = [_rows(delta, tensor.to(value.dtype)) for tensor in (old, value, new)]
            before, wide, after = parts
            update, size = float((wide - before).norm()), float(before.norm())
            lost = float((wide - after).norm()) / update if update else 0.0
            ratio = update / size if size else None
            dtype = str(new.dtype).removeprefix("torch.")
            self.drift.setdefault(site.key, SiteDrift(site.key, dtype, ratio, lost))


def _modules(path: str, module: nn.Module, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """As `named_modules`, without what adapters hold."""
    seen.add(id(module))
    yield path, module
    for name, child in module._modules.items():
        if child is not None and id(child) not in seen and name not in (SLOT, BANK):
            yield from _modules(_key(path, name), child, seen)


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _changed(deltas: Sequence[Delta]) -> set[str]:
    """Names of the module's parameters that the deltas change."""
    names = {delta.site.weight for delta in deltas}
    return names | {delta.site.bias for delta in deltas if delta.changes_bias and delta.site.bias is not None}


def _rows(delta: Delta, stored: Tensor) -> Tensor:
    """The rows of a stored tensor that a delta's site covers."""
    if delta.site.rows is None:
        return stored
    whole = to_canonical(delta.site.kind, stored) if stored.dim() > 1 else stored
    return whole[slice(*delta.site.rows)]


def effective_values(deltas: Sequence[Delta], parameters: dict[str, Any]) -> dict[str, Tensor]:
    """Wide effective values by parameter name, as the adapted module's properties compute them in their own dtype."""
    values: dict[str, Tensor] = {}

    def wide(name: str) -> Tensor:
        if name not in values:
            parameter = parameters[name].detach()
            values[name] = parameter.to(torch.promote_types(parameter.dtype, torch.float32))
        return values[name]

    for delta in deltas:
        site = delta.site
        if site.weight == "bias":  # what a bias becomes does not depend on the weight beside it
            weight = parameters["weight"].detach() if parameters.get("weight") is not None else wide("bias")
            new_bias = effective_rows(delta, to_canonical(site.kind, weight), wide("bias"))[1]
            assert new_bias is not None
            values["bias"] = new_bias
            continue
        bias = (
            wide(site.bias)
            if delta.changes_bias and site.bias is not None
            else _bias(parameters, values, site)
        )
        new_weight, new_bias = effective_rows(delta, to_canonical(site.kind, wide(site.weight)), bias)
        values[site.weight] = from_canonical(site.kind, new_weight)
        if delta.changes_bias and site.bias is not None and new_bias is not None:
            values[site.bias] = new_bias
    return values


def _bias(parameters: dict[str, Any], values: dict[str, Tensor], site: Any) -> Tensor | None:
    if site.bias is None or parameters.get(site.bias) is None:
        return None
    return values.get(site.bias, parameters[site.bias].detach())


def _in_place(deltas: Sequence[Delta], parameters: dict[str, Any]) -> bool:
    """Add to, or replace, the stored values without a copy of them, where every update is of that kind."""
    steps: list[Callable[[], Any]] = []
    for delta in deltas:
        parameter, rows = parameters[delta.site.weight], delta.site.rows
        if delta.changes_bias or parameter.dtype not in (torch.float32, torch.float64):
            return False
        if isinstance(delta, Owned):
            if rows is not None and parameter.dim() > 1:
                return False
            steps.append(
                partial((parameter if rows is None else parameter[slice(*rows)]).copy_, delta.current())
            )
            continue
        if not parameter.is_contiguous():
            return False
        matrix = to_canonical(delta.site.kind, parameter)
        if rows is not None:
            matrix = matrix[slice(*rows)]
        own: Callable[[Tensor], None] | None = getattr(delta, "effective_", None)
        factors = delta.rank_factors()
        if own is not None:
            steps.append(partial(own, matrix.flatten(1)))
        elif factors is not None and factors[0].dtype == parameter.dtype:
            steps.append(partial(matrix.flatten(1).addmm_, *factors))
        else:
            return False
    for step in steps:
        step()
    return True
