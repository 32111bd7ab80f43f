"""What an adapter adds, where, and what it costs: counts by closed formula, before any training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from peftx.adapters.delta import Owned
from peftx.adapters.packing import layout_of, packer_of
from peftx.adapters.site import Site
from peftx.adapters.slot import banks_of, is_reserved, slots_of

if TYPE_CHECKING:
    from peftx.adapters.attachment import Attachment

__all__ = ["Counts", "Explanation", "SiteRow", "count", "explain", "explain_attachment"]

_FLOAT32 = 4
_MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Counts:
    """Values of one adapter. `adapter` and `owned` (a head, biases) are trained and add up to `trainable`.

    `stored_bytes` are those of its tensors in an adapter folder, packed where it packs them.
    """

    adapter: int
    owned: int
    head: int
    trainable: int
    stored_bytes: int
    base_total: int


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One line of an explanation."""

    key: str
    role: str
    kind: str
    shape: tuple[int, ...]
    trained: int
    owned: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where an adapter goes and what it costs.

    `memory` is an estimate in bytes: trained values, gradients and AdamW moments in float32, and per sample-token
    the inputs a frozen layer would not keep but an adapted one does. `notes`: what the method says of its options.
    """

    method: str
    formula: str
    rows: tuple[SiteRow, ...]
    counts: Counts
    memory: dict[str, int]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def by_role(self) -> list[tuple[str, str, int, int, bool]]:
        """(role, shape, sites, trained values, owned), sites of one role and shape together."""
        grouped: dict[tuple[str, str, bool], list[int]] = {}
        for row in self.rows:
            shape = " x ".join(map(str, row.shape)) or ("-" if row.kind == "bank" else "scalar")
            grouped.setdefault((row.role, shape, row.owned), []).append(row.trained)
        return [(role, shape, len(n), sum(n), owned) for (role, shape, owned), n in grouped.items()]

    def render(self, *, sites: bool = False) -> str:
        """A table as text: by role, or with `sites` one line a site."""
        if sites:
            head = ("site", "role", "shape", "trained")
            body = [(r.key, r.role, " x ".join(map(str, r.shape)), f"{r.trained:,}") for r in self.rows]
        else:
            head = ("role", "shape", "sites", "trained")
            body = [
                (role + (" (owned)" if owned else ""), shape, str(n), f"{trained:,}")
                for role, shape, n, trained, owned in self.by_role()
            ]
        lines = [self.method + (f"   {self.formula}" if self.formula else ""), *_aligned((head, *body))]
        c, m = self.counts, self.memory
        share = 100 * c.trainable / c.base_total if c.base_total else 0.0
        lines.append(
            f"trained {c.trainable:,} = adapter {c.adapter:,} + owned {c.owned:,} (head {c.head:,}); "
            f"{share:.2f} % of {c.base_total:,}"
        )
        lines.append(
            f"training adds {m['training'] / _MIB:.1f} MiB (values, gradients, AdamW moments) and keeps at most "
            f"{m['per_token']:,} bytes per token or position for the backward; stored {_size(c.stored_bytes)}"
        )
        lines += [f"note: {text}" for text in self.notes]
        return "\n".join(lines)


def _size(stored: int) -> str:
    return f"{stored / _MIB:.2f} MiB" if stored >= _MIB // 10 else f"{stored / 1024:.1f} KiB"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            c.rjust(w) if i == last else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def count(model: nn.Module, attachment: Attachment) -> Counts:
    """Count an attached adapter's values as they are, each shared tensor once."""
    trained: dict[int, tuple[int, bool, bool]] = {}
    stored: dict[int, int] = {}
    for _, _, slot in slots_of(model):
        if attachment.name not in slot:
            continue
        for delta in slot.deltas((attachment.name,)):
            owned = isinstance(delta, Owned)
            head = delta.site.role == "head"
            for key in delta.__dict__.get("_trained", ()):
                parameter = delta.get_parameter(key)
                trained[id(parameter)] = (parameter.numel(), owned, head)
            stored |= _stored(delta)
    bank = banks_of(model).get(attachment.name)
    if bank is not None:
        for key in bank.__dict__.get("_trained", ()):
            parameter = bank.get_parameter(key)
            trained[id(parameter)] = (parameter.numel(), False, False)
        stored |= _stored(bank)
    owned_total = sum(n for n, owned, _ in trained.values() if owned)
    total = sum(n for n, _, _ in trained.values())
    return Counts(
        adapter=total - owned_total,
        owned=owned_total,
        head=sum(n for n, _, head in trained.values() if head),
        trainable=total,
        stored_bytes=sum(stored.values()),
        base_total=_base_total(model),
    )


def _stored(holder: Any) -> dict[int, int]:
    """Bytes by tensor: of one that is shared once, of one that is packed under the id of its holder."""
    state: dict[str, Any] = holder.state_dict(keep_vars=True)
    packer = packer_of(holder)
    if packer is not None:
        layout = layout_of(packer, state).values()
        return {id(holder): sum(dtype.itemsize * math.prod(shape) for dtype, shape in layout)}
    return {id(tensor): tensor.nbytes for tensor in state.values()}


def _base_total(model: nn.Module) -> int:
    return sum(p.numel() for key, p in model.named_parameters() if not is_reserved(key))


def explain_attachment(model: nn.Module, attachment: Attachment) -> Explanation:
    """Explain an adapter that is attached; its closed formula is checked against what is there."""
    return _explanation(model, attachment.method_name, attachment, count(model, attachment))


def explain(model: nn.Module, method: Any, *, config: Any = None, **options: Any) -> Explanation:
    """Explain what attaching a method would do, without attaching it and without making any tensor.

    Raises:
        as `peftx.attach`.
    """
    from peftx.adapters.attachment import Attachment, plan_of, refuse_model, resolve_method

    method_name, method, config = resolve_method(method, config, options)
    refuse_model(model)
    plan, owned = plan_of(model, method_name, method, config)
    attachment = Attachment("explained", method_name, method, config, plan, owned)
    adapter = sum(method.param_count(site, config) for site in plan) + _bank_count(attachment)
    # a tied parameter is one tensor; slices are each a tensor of their own
    unique: dict[int | str, Site] = {
        id(_parameter(model, site)) if site.rows is None else site.key: site
        for site in owned
        if site.kind != "statistic"
    }
    own = {site.key: method.owned_count(site, config) for site in unique.values()}
    counts = Counts(
        adapter=adapter,
        owned=sum(own.values()),
        head=sum(own[site.key] for site in unique.values() if site.role == "head"),
        trainable=adapter + sum(own.values()),
        stored_bytes=(method.bank_bytes(plan, config) if len(plan) else 0)
        + sum(method.stored_bytes(site, config) for site in plan)
        + sum(method.owned_bytes(site, config) for site in unique.values())
        + sum(site.numel * site.dtype.itemsize for site in owned if site.kind == "statistic"),
        base_total=_base_total(model),
    )
    return _explanation(model, method_name, attachment, counts)


def _bank_count(attachment: Attachment) -> int:
    return attachment.method.bank_count(attachment.plan, attachment.config) if len(attachment.plan) else 0


def _parameter(model: nn.Module, site: Site) -> Any:
    return model.get_submodule(site.module)._parameters[site.weight]


def _explanation(model: nn.Module, name: str, attachment: Attachment, counts: Counts) -> Explanation:
    method, config = attachment.method, attachment.config
    rows = [
        SiteRow(s.key, s.role, s.kind, s.shape, method.param_count(s, config), owned=False)
        for s in attachment.plan
    ]
    rows += [
        SiteRow(
            s.key,
            s.role,
            s.kind,
            s.shape,
            0 if s.kind == "statistic" else method.owned_count(s, config),
            owned=True,
        )
        for s in attachment.owned
    ]
    shared = _bank_count(attachment)
    if shared:
        rows.insert(0, SiteRow("@bank", "shared by all sites", "bank", (), shared, owned=False))
    return Explanation(
        method=name,
        formula=method.formula(list(attachment.plan), config),
        rows=tuple(rows),
        counts=counts,
        memory={
            "training": counts.trainable * _FLOAT32 * 4,
            "per_token": _kept_values(attachment) * _FLOAT32,
        },
        notes=tuple(method.notes(attachment.plan, config)),
    )


def _kept_values(attachment: Attachment) -> int:
    """What the backward pass needs of each token: inputs of layers, outputs, as the method says."""
    plan, method, kept = attachment.plan, attachment.method, 0
    if method.keeps_input:
        # a layer's input is kept once, however many of its slices are adapted
        widths = {s.module: s.shape[1] if len(s.shape) > 1 else 0 for s in plan}
        widths |= {s.module: s.shape[0] for s in plan if s.kind == "activation"}
        kept += sum(widths.values())
    if method.keeps_output:
        kept += sum(s.shape[0] for s in plan if s.product)
    return kept
