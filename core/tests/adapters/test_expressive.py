"""Methods of the literature that the pieces must be able to express, each in a few lines, checked by its equation.

They are sketches: the packs will bring the real ones. What fails here is a fault of the pieces.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import peftx
from peftx.adapters import AdapterMethod, Delta, Insert, Schedule, Site, SitePlan
from peftx.config.adapter import AdapterConfig


class Config(AdapterConfig):
    targets: list[str] = Field(default=["glob:*"])
    also_train: list[str] = Field(default=[])
    rank: int = 2
    seed: int = 3


def method(delta: type[Delta], **body: Any) -> type[AdapterMethod]:
    return type(
        delta.__name__, (AdapterMethod,), {"Config": Config, "Delta": delta, "kinds": ("linear",), **body}
    )


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)).double().eval()


def randomise(adapted: peftx.Adapted) -> None:
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.normal_()


def matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64))


def zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64))


def delta_at(adapted: peftx.Adapted, index: int = 0) -> Any:
    return adapted.model[index].peftx["default"]["weight"]  # type: ignore[index,union-attr]


class HydraDelta(Delta):
    changes_bias = True

    def __init__(self, site: Site, config: Config, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        out, width = site.shape
        self.Ap, self.ap, self.Bp, self.cp = matrix(2, width), zeros(2), zeros(out, 2), zeros(out)
        self.As, self.as_, self.Bs, self.cs = matrix(2, out), zeros(2), zeros(out, 2), zeros(out)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert bias is not None
        left = torch.eye(weight.shape[0], dtype=weight.dtype) + self.Bs @ self.As
        added = self.Bp @ self.ap + self.cp + self.Bs @ self.as_ + self.cs
        return left @ weight + self.Bp @ self.Ap, left @ bias + added


def test_hydra_moves_the_bias_as_well() -> None:
    x, base = torch.randn(4, 6, dtype=torch.float64), model()
    adapted = peftx.attach(base, method(HydraDelta), targets=["0"])
    y = base(x)
    with adapted.disabled():
        assert torch.equal(base(x), y)
    randomise(adapted)
    d = delta_at(adapted)
    f = F.linear(x, base[0]._parameters["weight"], base[0]._parameters["bias"])  # type: ignore[arg-type]
    z = f + (x @ d.Ap.T + d.ap) @ d.Bp.T + d.cp + (f @ d.As.T + d.as_) @ d.Bs.T + d.cs
    torch.testing.assert_close(base(x), base[2](torch.tanh(z)))
    torch.testing.assert_close(F.linear(x, base[0].weight, base[0].bias), z)  # type: ignore[arg-type]


class PissaDelta(Delta):
    """W + B A - B0 A0, anchored: the base is never rewritten."""

    def __init__(self, site: Site, config: Config, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        root = s[: config.rank].sqrt()
        self.B = nn.Parameter(u[:, : config.rank] * root)
        self.A = nn.Parameter(root[:, None] * v[: config.rank])
        self.register_buffer("B0", self.B.detach().clone())
        self.register_buffer("A0", self.A.detach().clone())

    def rank_factors(self) -> tuple[Tensor, Tensor]:
        return torch.cat((self.B, -self.B0), 1), torch.cat((self.A, self.A0))  # type: ignore[operator,arg-type]

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        b, a = self.rank_factors()
        return weight + b @ a, bias


def test_pissa_starts_at_the_base_and_two_share_one() -> None:
    x, base = torch.randn(4, 6, dtype=torch.float64), model()
    y = base(x)
    adapted = peftx.attach(base, method(PissaDelta), name="a")
    torch.testing.assert_close(base(x), y)
    adapted.attach(method(PissaDelta), name="b")
    randomise(adapted)
    b = base(x)
    adapted.activate("a")
    torch.testing.assert_close(base(x), y)
    adapted.activate("b")
    assert torch.equal(base(x), b)


class SaltDelta(Delta):
    """U1 ((a - 1) s1 + b) V1^T + U2 X Y V2^T on top of W, singular vectors of the weight it was given."""

    def __init__(self, site: Site, config: Config, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        k = config.rank
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        for name, value in (("u", u), ("s", s), ("v", v)):
            self.register_buffer(name, value, persistent=False)
        self.k, self.a, self.b = (
            k,
            nn.Parameter(torch.ones_like(s[:k])),
            nn.Parameter(torch.zeros_like(s[:k])),
        )
        self.X, self.Y = matrix(s.numel() - k, 1), zeros(1, s.numel() - k)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        u, s, v, k = *(getattr(self, name) for name in "usv"), self.k
        top = (u[:, :k] * ((self.a - 1) * s[:k] + self.b)) @ v[:k]
        return weight + top + u[:, k:] @ (self.X @ self.Y) @ v[k:], bias


def test_salt_stores_only_what_it_trains() -> None:
    x, base = torch.randn(4, 6, dtype=torch.float64), model()
    y = base(x)
    adapted = peftx.attach(base, method(SaltDelta))
    assert torch.equal(base(x), y)
    assert {slot for _, slot in adapted.tensors()} == {"a", "b", "X", "Y"}
    with torch.no_grad():
        delta_at(adapted).a.fill_(2)
    s = torch.linalg.svdvals(base[0].weight)  # type: ignore[arg-type]
    s0 = torch.linalg.svdvals(base[0]._parameters["weight"])  # type: ignore[arg-type]
    torch.testing.assert_close(s, torch.cat((2 * s0[:2], s0[2:])))


class Pairs(nn.Module):
    """One pair of factors for each distinct shape."""

    def __init__(self, plan: SitePlan, config: Config) -> None:
        super().__init__()
        shapes = sorted({site.shape for site in plan})
        self.place = {shape: i for i, shape in enumerate(shapes)}
        self.A = nn.ParameterList([matrix(config.rank, width) for _, width in shapes])
        self.B = nn.ParameterList([matrix(out, config.rank) for out, _ in shapes])


class S2Delta(Delta):
    def __init__(self, site: Site, config: Config, weight: Tensor, bias: Tensor | None, bank: Pairs) -> None:
        super().__init__(site, bank)
        self.coefficients = zeros(config.rank)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        bank: Any = self.bank
        i = bank.place[self.site.shape]
        return weight + (bank.B[i] * self.coefficients) @ bank.A[i], bias


class Proximal(Schedule):
    """l <- sign(l) max(|l| - lr mu, 0)"""

    def after_step(self, step: int) -> None:
        for key, delta in self.deltas.items():
            assert key != "@bank"
            self.store.update(delta.coefficients, lambda value, lr: F.softshrink(value, lr * 3.0))


def test_s2_lora_gets_exact_zeros() -> None:
    base = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 6)).double()
    s2 = method(
        S2Delta,
        bank=lambda self, plan, config: Pairs(plan, config),
        schedule=lambda self, config: Proximal(),
        wakes_within=1,
    )
    adapted = peftx.attach(base, s2)
    assert len(adapted.model.peftx_bank["default"].A) == 2, "two shapes"  # type: ignore[index,union-attr,arg-type]
    base.train()
    optimizer = torch.optim.SGD(adapted.parameters(), 0.01)
    adapted.bind(optimizer, total_steps=20)
    x = torch.randn(8, 4, dtype=torch.float64)
    for _ in range(20):
        optimizer.zero_grad()
        base(x).square().sum().backward()
        optimizer.step()
    values = torch.cat([delta_at(adapted, i).coefficients.detach() for i in (0, 2, 3)])
    assert (values == 0).any() and (values != 0).any()


class DyLoRADelta(Delta):
    def __init__(self, site: Site, config: Config, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.A, self.B, self.rank = matrix(config.rank, site.shape[1]), zeros(site.shape[0], config.rank), 1

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        b = self.rank
        return weight + self.B[:, :b] @ self.A[:b] / b, bias


class Ranks(Schedule):
    """A rank for all sites, drawn for the step to come; only its last component moves."""

    def start(self, deltas: Any, store: Any, total_steps: int) -> None:
        super().start(deltas, store, total_steps)
        self.draw(1)

    def draw(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for delta in self.deltas.values():
            delta.rank = 1 + int(torch.randint(0, delta.A.shape[0], (), generator=generator))  # type: ignore[assignment]
            generator.manual_seed(step)

    def before_step(self, step: int) -> None:
        for delta in self.deltas.values():
            here = torch.arange(delta.A.shape[0]) == delta.rank - 1
            self.store.restrict(delta.A, here[:, None])
            self.store.restrict(delta.B, here[None])

    def after_step(self, step: int) -> None:
        self.draw(step + 1)


def test_dylora_moves_one_component_a_step() -> None:
    base = model().train()
    adapted = peftx.attach(base, method(DyLoRADelta, schedule=lambda self, config: Ranks()), rank=3)
    optimizer = torch.optim.AdamW(adapted.parameters(), 0.1, weight_decay=0.3)
    adapted.bind(optimizer, total_steps=8)
    x = torch.randn(8, 6, dtype=torch.float64)
    for _ in range(8):
        optimizer.zero_grad()
        for part in x.chunk(2):  # accumulation: both parts under the same rank
            base(part).square().sum().backward()
        deltas = [delta_at(adapted, i) for i in (0, 2)]
        assert deltas[0].rank == deltas[1].rank
        rank, before = deltas[0].rank, [d.B.detach().clone() for d in deltas]
        optimizer.step()
        for delta, old in zip(deltas, before, strict=True):
            moved = (delta.B.detach() != old).any(0).nonzero().flatten().tolist()
            assert moved == [rank - 1]


class MosaInsert(Insert):
    """z = gelu(W_d LN(h)); a random expert's up projection in training, their mean in evaluation."""

    read = "tap"

    def __init__(self, site: Site, config: Config, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        d = site.shape[0]
        self.norm, self.down = nn.LayerNorm(d).double(), nn.Linear(d, 4).double()
        self.up = nn.ParameterList([zeros(d, 4) for _ in range(2)])
        order = torch.rand(d, 4, generator=torch.Generator().manual_seed(config.seed)).flatten().argsort()
        owner = torch.empty(d * 4, dtype=torch.int64)
        owner[order] = torch.arange(d * 4) * 2 // (d * 4)
        self.register_buffer("owner", owner.view(d, 4), persistent=False)

    def insert(self, x: Tensor) -> Tensor:
        z = F.gelu(self.down(self.norm(x)))
        if not self.training:
            return F.linear(z, sum(self.up) / 2)  # type: ignore[arg-type]
        return F.linear(z, self.up[int(torch.randint(0, 2, ()))])


class Experts(Schedule):
    def before_step(self, step: int) -> None:
        for delta in self.deltas.values():
            for index, up in enumerate(delta.up):  # type: ignore[arg-type]
                self.store.mask_gradient(up, delta.owner == index)  # type: ignore[arg-type]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(6)
        self.mlp = nn.Sequential()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))


def test_mosa_keeps_its_experts_apart() -> None:
    from dataclasses import replace

    class Mosa(AdapterMethod):
        Config = Config
        Delta = MosaInsert
        kinds = ("activation",)

        def plan(self, model: nn.Module, config: Any) -> SitePlan:
            sites = super().plan(model, config)
            return SitePlan(tuple(replace(s, read=s.module.replace("mlp", "norm2")) for s in sites))

        def schedule(self, config: Any) -> Schedule:
            return Experts()

    torch.manual_seed(0)
    base = nn.Sequential(Block(), Block()).double()
    x = torch.randn(5, 3, 6, dtype=torch.float64)
    y = base(x)
    adapted = peftx.attach(base, Mosa, targets=["mlp"])
    assert torch.equal(base.eval()(x), y)
    base.train()
    optimizer = torch.optim.AdamW(adapted.parameters(), 0.05)
    adapted.bind(optimizer, total_steps=12)
    for _ in range(12):
        optimizer.zero_grad()
        base(x).square().sum().backward()
        optimizer.step()
    for block in base:
        insert: Any = block.mlp.peftx["default"]["insert"]  # type: ignore[index,union-attr]
        for index, up in enumerate(insert.up):
            assert (up[insert.owner != index] == 0).all() and (up[insert.owner == index] != 0).any()
    outputs = [base.train()(x) for _ in range(8)]
    assert any(not torch.equal(outputs[0], other) for other in outputs)
    assert torch.equal(base.eval()(x), base(x))


@pytest.mark.parametrize("name", ["PissaDelta", "SaltDelta", "HydraDelta"])
def test_the_sketches_obey_detach(name: str) -> None:
    x, base = torch.randn(4, 6, dtype=torch.float64), model()
    y = base(x)
    adapted = peftx.attach(base, method(globals()[name]))
    randomise(adapted)
    assert not torch.allclose(base(x), y)
    adapted.detach()
    assert torch.equal(base(x), y)
