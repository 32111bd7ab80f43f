"""Parameter, gradient and optimizer state change together, and training goes on as if it had always been so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import peftx
from peftx.adapters import ParamStore
from peftx.errors import AdapterError

Make = Callable[[Any], Optimizer]
#: every entry is moved on its own: a part of the problem is a problem
ELEMENTWISE: dict[str, Make] = {
    "adamw": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1),
    "adamw foreach": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.05, amsgrad=True),
    "sgd momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "sgd nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05, initial_accumulator_value=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.05, momentum=0.9, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, 0.05),
}


class FlatFactors(Optimizer):
    """A second moment factored into a row and a column of one dimension each, as Adafactor does elsewhere."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"], state["rms"] = 0, 0.0
                    state["row"], state["col"] = p.new_zeros(p.shape[:-1]), p.new_zeros(p.shape[-1])
                square = p.grad.square() + 1e-8
                state["step"] += 1
                state["row"].lerp_(square.mean(-1), 0.5)
                state["col"].lerp_(square.mean(0), 0.5)
                estimate = state["row"][:, None] * state["col"] / state["row"].mean()
                p.sub_(group["lr"] * p.grad / estimate.sqrt())


FACTORED: dict[str, Make] = {"adafactor": lambda p: torch.optim.Adafactor(p, 0.05, weight_decay=0.1)}
ALL = {**ELEMENTWISE, **FACTORED}


class Part(nn.Module):
    def __init__(self, *shape: int, seed: int = 0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def steps(part: Part, optimizer: Optimizer, goal: Tensor, number: int = 3, before: Any = None) -> None:
    """Least squares with a curvature of its own in every entry."""
    curvature = 1 + goal.abs()
    for _ in range(number):
        optimizer.zero_grad()
        (curvature * (part.w - goal).square()).sum().backward()
        if before is not None:
            before()
        optimizer.step()


def goal_of(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def tensors_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    found = optimizer.state.get(parameter, {})
    return {name: entry for name, entry in found.items() if isinstance(entry, Tensor) and entry.dim()}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_permuting_and_training_is_training_and_permuting(name: str, dim: int) -> None:
    shape, goal = (5, 4), goal_of(5, 4)
    order = torch.randperm(shape[dim], generator=torch.Generator().manual_seed(2))
    plain, part = Part(*shape), Part(*shape)
    reference, optimizer = ALL[name]([plain.w]), ALL[name]([part.w])
    store = ParamStore(optimizer, [part])
    steps(plain, reference, goal, 6)
    steps(part, optimizer, goal, 3)
    old = part.w
    new = store.replace(old, old.detach().index_select(dim, order), take=order, dim=dim)
    assert new is part.w and new is not old and new.grad is None and new.requires_grad
    assert [p for group in optimizer.param_groups for p in group["params"]] == [new]
    assert old not in optimizer.state
    steps(part, optimizer, goal.index_select(dim, order), 3)
    torch.testing.assert_close(part.w, plain.w.index_select(dim, order), rtol=1e-5, atol=1e-6)
    assert int(next(iter(optimizer.state.values()), {}).get("step", 6)) == 6, "the count of steps goes on"


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dim", [0, 1])
def test_what_is_kept_of_a_shrunk_parameter_trains_on_untouched(name: str, dim: int) -> None:
    shape, goal = (5, 4), goal_of(5, 4)
    kept = torch.tensor([3, 0])
    plain, part = Part(*shape), Part(*shape)
    reference, optimizer = ALL[name]([plain.w]), ALL[name]([part.w])
    store = ParamStore(optimizer, [part])
    steps(plain, reference, goal, 6)
    steps(part, optimizer, goal, 3)
    store.replace(part.w, part.w.detach().index_select(dim, kept), take=kept, dim=dim)
    steps(part, optimizer, goal.index_select(dim, kept), 3)
    torch.testing.assert_close(part.w, plain.w.index_select(dim, kept))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_was_there_of_a_grown_parameter_trains_on_untouched(name: str) -> None:
    goal = goal_of(7, 4)
    plain, part = Part(5, 4), Part(5, 4)
    reference, optimizer = ALL[name]([plain.w]), ALL[name]([part.w])
    store = ParamStore(optimizer, [part])
    steps(plain, reference, goal[:5], 6)
    steps(part, optimizer, goal[:5], 3)
    before = {key: value.clone() for key, value in tensors_of(optimizer, part.w).items()}
    take = torch.tensor([-1, 0, 1, 2, 3, 4, -1])
    value = torch.cat((torch.zeros(1, 4), part.w.detach(), torch.zeros(1, 4)))
    store.replace(part.w, value, take=take)
    blank = 0.1 if name == "adagrad" else 0.0  # what a new accumulator begins with
    for key, entry in tensors_of(optimizer, part.w).items():
        assert torch.equal(entry[1:6], before[key])
        assert bool((entry[[0, 6]] == blank).all())
    assert tensors_of(optimizer, part.w).keys() == before.keys()
    order = torch.tensor([5, 0, 1, 2, 3, 4, 6])
    steps(part, optimizer, goal[order], 3)
    torch.testing.assert_close(part.w[1:6], plain.w)
    assert torch.isfinite(part.w).all() and (part.w[[0, 6]] != 0).all()


@pytest.mark.parametrize("take", [[2, 0], [0, 1, 2, 3, 4, -1, -1]])
@pytest.mark.parametrize("dim", [0, 1])
def test_factored_moments_follow(take: list[int], dim: int) -> None:
    part, index = Part(5, 5), torch.tensor(take)
    optimizer = torch.optim.Adafactor([part.w], 0.05)
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(5, 5))
    before = {key: value.clone() for key, value in tensors_of(optimizer, part.w).items()}
    assert {tuple(value.shape) for value in before.values()} == {(5, 1), (1, 5)}
    value = part.w.detach().index_select(dim, index.clamp_min(0))
    store.replace(part.w, value, take=index, dim=dim)
    after = tensors_of(optimizer, part.w)
    along, across = ("row_var", "col_var") if dim == 0 else ("col_var", "row_var")
    assert torch.equal(after[across], before[across])
    there = index >= 0
    assert torch.equal(after[along].flatten()[there], before[along].flatten()[index[there]])
    assert not after[along].flatten()[~there].any()
    steps(part, optimizer, goal_of(*part.w.shape))
    assert torch.isfinite(part.w).all()


@pytest.mark.parametrize(("shape", "take"), [((4, 4), [1, 0, 2]), ((1, 4), [0, -1])])
def test_a_state_that_cannot_follow_is_dropped_whole(shape: tuple[int, int], take: list[int]) -> None:
    """Factors that do not say which dimension is theirs: half of a state would be worse than none."""
    makers: list[Make] = [FlatFactors] if shape[0] > 1 else [FlatFactors, torch.optim.Adafactor]
    for make in makers:
        part = Part(*shape)
        optimizer = make([part.w])
        store = ParamStore(optimizer, [part])
        steps(part, optimizer, goal_of(*shape))
        index = torch.tensor(take)
        store.replace(part.w, torch.ones(len(take), 4), take=index)
        assert part.w not in optimizer.state
        fresh = Part(len(take), 4)
        with torch.no_grad():
            fresh.w.fill_(1.0)
        steps(part, optimizer, goal_of(len(take), 4))
        steps(fresh, make([fresh.w]), goal_of(len(take), 4))
        assert torch.equal(part.w, fresh.w)


@pytest.mark.parametrize("name", ALL)
def test_without_take_moments_stay_with_the_shape_and_go_with_it(name: str) -> None:
    part, plain = Part(5, 4), Part(5, 4)
    optimizer, reference = ALL[name]([part.w]), ALL[name]([plain.w])
    store = ParamStore(optimizer, [part])
    steps(plain, reference, goal_of(5, 4), 5)
    steps(part, optimizer, goal_of(5, 4), 3)
    store.replace(part.w, part.w.detach())
    steps(part, optimizer, goal_of(5, 4), 2)
    assert torch.equal(part.w, plain.w)
    store.replace(part.w, torch.zeros(2, 3))
    fresh = Part(2, 3)
    with torch.no_grad():
        fresh.w.zero_()
    steps(part, optimizer, goal_of(2, 3))
    steps(fresh, ALL[name]([fresh.w]), goal_of(2, 3))
    assert torch.equal(part.w, fresh.w), "as a new parameter in a new optimizer"


@pytest.mark.parametrize("name", ALL)
def test_a_forgotten_parameter_is_as_new(name: str) -> None:
    part = Part(5, 4)
    optimizer = ALL[name]([part.w])
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(5, 4))
    fresh = Part(5, 4)
    with torch.no_grad():
        fresh.w.copy_(part.w)
    store.forget(part.w)
    steps(part, optimizer, goal_of(5, 4))
    steps(fresh, ALL[name]([fresh.w]), goal_of(5, 4))
    assert torch.equal(part.w, fresh.w)


def test_a_replaced_parameter_keeps_its_group_its_schedule_and_its_dtype() -> None:
    first, second = Part(3, 2), Part(4, 2)
    optimizer = torch.optim.AdamW(
        [
            {"params": [("a", first.w)], "lr": 0.1},
            {"params": [("b", second.w)], "lr": 0.2, "weight_decay": 0.5, "mark": "mine"},
        ]
    )
    rates = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    held = optimizer.param_groups[1]["params"]
    store = ParamStore(optimizer, [first, second])
    steps(second, optimizer, goal_of(4, 2), 1)
    rates.step()
    new = store.replace(second.w, torch.zeros(2, 2, dtype=torch.float64))
    assert new.dtype == torch.float32
    group = store.group(new)
    assert group["params"] is held and group["params"][0] is new and group["mark"] == "mine"
    assert group.get("param_names") == ["b"]
    assert store.lr(new) == pytest.approx(0.1) and store.lr(first.w) == pytest.approx(0.05)
    with pytest.raises(AdapterError, match=r"shape \(4, 2\) is not one of this adapter's, or was replaced"):
        store.mask(nn.Parameter(torch.zeros(4, 2)), torch.ones(4, 2, dtype=torch.bool))


KEEP = torch.tensor([True, False, True, True, False])


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(5,), (5, 4)])
def test_masked_training_is_training_of_the_smaller_problem(name: str, shape: tuple[int, ...]) -> None:
    goal = goal_of(*shape)
    keep = KEEP if len(shape) == 1 else KEEP[:, None]  # broadcast
    plain, part = Part(*shape), Part(*shape)
    reference, optimizer = ALL[name]([plain.w]), ALL[name]([part.w])
    store = ParamStore(optimizer, [part])
    steps(plain, reference, goal, 3)
    steps(part, optimizer, goal, 3)
    # the smaller problem: what is kept, with its moments
    ParamStore(reference, [plain]).replace(plain.w, plain.w.detach()[KEEP], take=KEEP.nonzero().flatten())
    store.mask(part.w, keep)
    for tensor in (part.w, part.w.grad, *tensors_of(optimizer, part.w).values()):
        assert not tensor[~KEEP].any()
    assert name == "sgd" or tensors_of(optimizer, part.w)
    steps(part, optimizer, goal, 3, before=lambda: store.mask_gradient(part.w, keep))
    steps(plain, reference, goal[KEEP], 3)
    torch.testing.assert_close(part.w[KEEP], plain.w)
    assert not part.w[~KEEP].any(), "no momentum brings a masked entry back"
    assert int(next(iter(optimizer.state.values()), {}).get("step", 6)) == 6


def test_a_masked_gradient_leaves_value_and_moments() -> None:
    part = Part(5)
    optimizer = torch.optim.AdamW([part.w], 0.05)
    store = ParamStore(optimizer, [part])
    store.mask_gradient(part.w, KEEP)  # there is none yet
    steps(part, optimizer, goal_of(5))
    value, moment = part.w.detach().clone(), optimizer.state[part.w]["exp_avg"].clone()
    gradient = part.w.grad.clone()
    store.mask_gradient(part.w, KEEP)
    assert torch.equal(part.w, value) and torch.equal(optimizer.state[part.w]["exp_avg"], moment)
    assert torch.equal(part.w.grad, gradient * KEEP)


def test_masking_without_gradient_or_state() -> None:
    part = Part(5)
    store = ParamStore(torch.optim.AdamW([part.w], 0.05), [part])
    store.mask(part.w, KEEP)
    assert torch.equal(part.w != 0, KEEP) and part.w.grad is None


@pytest.mark.parametrize("name", ["adamw", "sgd momentum", "nadam"])
def test_a_parameter_without_dimensions(name: str) -> None:
    part = Part()
    optimizer = ALL[name]([part.w])
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(1).squeeze())
    store.mask(part.w, torch.tensor(False))
    state = optimizer.state[part.w]
    assert part.w.item() == 0 and state["momentum_buffer" if "sgd" in name else "exp_avg"].item() == 0
    assert int(state.get("step", 3)) == 3 and float(state.get("mu_product", 1.0)) > 0, "counters stay"


def test_moments_kept_as_codes_are_forgotten() -> None:
    part = Part(5)
    optimizer = torch.optim.SGD([part.w], 0.1)
    optimizer.state[part.w] = {"codes": torch.full((5,), 7, dtype=torch.uint8), "scale": torch.ones(1)}
    ParamStore(optimizer, [part]).mask(part.w, KEEP)
    assert part.w not in optimizer.state and torch.equal(part.w != 0, KEEP)


@pytest.mark.parametrize("rate", [0.25, torch.tensor(0.25)])
def test_a_rule_is_given_the_value_and_the_learning_rate(rate: Any) -> None:
    part = Part(5)
    optimizer = torch.optim.AdamW([part.w], rate)
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(5))
    value, moment = part.w.detach().clone(), optimizer.state[part.w]["exp_avg"].clone()

    def soft(value: Tensor, lr: float) -> Tensor:
        return value.sign() * (value.abs() - 2 * lr).clamp_min(0)

    place = part.w
    store.update(part.w, soft)
    assert part.w is place and torch.equal(part.w, soft(value, 0.25)) and bool((part.w == 0).any())
    assert torch.equal(optimizer.state[part.w]["exp_avg"], moment)
    store.update(part.w, lambda value, lr: value.mul_(2))  # a rule may work in place
    assert torch.equal(part.w, 2 * soft(value, 0.25))
    with pytest.raises(AdapterError, match=r"of shape \(\) of a parameter of shape \(5,\).*`replace`"):
        store.update(part.w, lambda value, lr: value.sum())


class Bank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"a": Part(3, 2)})


class User(nn.Module):
    """Registers a shared parameter under a name of its own."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.shared = bank.inner["a"].w
        self.own = nn.Parameter(torch.ones(2))


def test_what_several_hold_stays_one() -> None:
    bank = Bank()
    users = [User(bank), User(bank)]
    optimizer = torch.optim.AdamW([bank.inner["a"].w, *(user.own for user in users)], 0.1)
    store = ParamStore(optimizer, [bank, *users])

    def step() -> None:
        optimizer.zero_grad()
        sum((user.shared @ user.own).square().sum() for user in users).backward()
        optimizer.step()

    step()
    take = torch.tensor([1, -1, 2, 0])
    value = torch.cat((bank.inner["a"].w.detach(), torch.zeros(1, 2)))
    new = store.replace(users[0].shared, value, take=take)
    assert all(held is new for held in (bank.inner["a"].w, users[0].shared, users[1].shared))
    assert (
        dict(users[1].named_parameters())["shared"] is new and len(optimizer.param_groups[0]["params"]) == 3
    )
    before = new.detach().clone()
    step()
    assert not torch.equal(new, before) and new.grad is not None
    store.mask(new, torch.tensor([True, True, False, True])[:, None])
    assert not users[1].shared[2].any() and users[0].shared[3].any()
    store.freeze(users[1].shared)
    assert not bank.inner["a"].w.requires_grad and users[0].own.requires_grad
    store.thaw(bank.inner["a"].w)
    assert users[0].shared.requires_grad


def test_frozen_and_thawed_across_switches() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).train()
    adapted = peftx.attach(model, "core.lora", name="a", targets=["0", "2"], rank=2, also_train=[])
    adapted.attach("core.lora", name="b", targets=["0"], rank=2, also_train=[]).activate("a", "b")
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    store = ParamStore(optimizer, adapted._holders("a").values())
    frozen: Any = adapted.tensors("a")["0", "A"]
    other: Any = adapted.tensors("a")["0", "B"]

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(5, 3)).square().sum().backward()
        optimizer.step()

    def train() -> list[bool]:
        before = frozen.detach().clone(), other.detach().clone()
        step()
        step()
        return [not torch.equal(now, was) for now, was in zip((frozen, other), before, strict=True)]

    assert train() == [True, True]
    store.freeze(frozen)
    assert frozen.grad is None and train() == [False, True]
    adapted.activate("b")
    assert train() == [False, False]
    adapted.activate("a")
    assert not frozen.requires_grad and train() == [False, True]
    named = {id(p) for p in adapted.parameters()}
    assert id(frozen) not in named and id(other) in named
    store.thaw(frozen)
    assert train() == [True, True]
    adapted.activate("b")
    adapted.activate("a", "b")
    assert frozen.requires_grad and train() == [True, True]


def test_an_adapter_whose_parameter_was_replaced_trains_on() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).train()
    adapted = peftx.attach(model, "core.lora", targets=["0", "2"], rank=2, also_train=[])
    optimizer = torch.optim.AdamW(adapted.parameters(), 0.1)
    store = ParamStore(optimizer, adapted._holders("default").values())

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(5, 3)).square().sum().backward()
        optimizer.step()

    step()
    keys, out = list(model.state_dict()), model(torch.ones(1, 3)).detach()
    a: Any = adapted.tensors()["0", "A"]
    b: Any = adapted.tensors()["0", "B"]
    # a third rank that does nothing yet
    grown = store.replace(a, torch.cat((a.detach(), torch.ones(1, 3))), take=torch.tensor([0, 1, -1]))
    store.replace(b, torch.cat((b.detach(), torch.zeros(4, 1)), 1), take=torch.tensor([0, 1, -1]), dim=1)
    assert list(model.state_dict()) == keys and adapted.tensors()["0", "A"] is grown
    torch.testing.assert_close(model(torch.ones(1, 3)), out)
    adapted.bind(optimizer)  # finds every trained parameter in the optimizer
    for _ in range(2):
        before = grown.detach().clone()
        step()
    assert grown.shape == (3, 3) and bool((grown != before).all())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"value": torch.ones(2, 4), "take": torch.tensor([0])}, r"new value has shape \(1, 4\), got \(2, 4\)"),
    ({"value": torch.ones(2, 3), "take": torch.tensor([0, 1])}, r"shape \(2, 4\), got \(2, 3\)"),
    ({"value": torch.ones(2, 4), "take": torch.tensor([0, 5])}, "from 0 to 5; there are 0 to 4"),
    ({"value": torch.ones(2, 4), "take": torch.tensor([-2, 0])}, "from -2 to 0"),
    ({"value": torch.ones(2, 4), "take": torch.tensor([0.0, 1.0])}, "int64"),
    ({"value": torch.ones(5, 4), "take": KEEP}, "int64"),
    ({"value": torch.ones(5, 4), "take": torch.arange(5), "dim": 2}, "no dimension 2"),
]


@pytest.mark.parametrize(("given", "words"), BAD)
def test_a_take_that_does_not_fit_is_refused_and_nothing_changes(given: dict[str, Any], words: str) -> None:
    part = Part(5, 4)
    optimizer = torch.optim.AdamW([part.w], 0.1)
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(5, 4))
    old = part.w
    value = given.pop("value")
    with pytest.raises(AdapterError, match=words):
        store.replace(old, value, **given)
    assert part.w is old and optimizer.param_groups[0]["params"] == [old] and old in optimizer.state


def test_a_parameter_shrunk_to_nothing() -> None:
    part = Part(5, 4)
    optimizer = torch.optim.AdamW([part.w], 0.1)
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(5, 4))
    store.replace(part.w, torch.empty(0, 4), take=torch.empty(0, dtype=torch.int64))
    steps(part, optimizer, goal_of(0, 4))
    assert optimizer.state[part.w]["exp_avg"].shape == (0, 4)


def test_a_restriction_ends_with_the_parameter_it_was_for() -> None:
    part = Part(5)
    optimizer = torch.optim.AdamW([part.w], 0.1)
    store = ParamStore(optimizer, [part])
    steps(part, optimizer, goal_of(5))
    store.restrict(part.w, KEEP)
    new = store.replace(part.w, torch.ones(3))
    store.restore()
    assert torch.equal(new, torch.ones(3))


def test_parameters_of_others_are_refused() -> None:
    part, other = Part(5), Part(5)
    optimizer = torch.optim.AdamW([part.w], 0.1)
    store = ParamStore(optimizer, [part])
    calls: list[Callable[[Any], Any]] = [
        store.lr,
        store.group,
        store.forget,
        store.freeze,
        store.thaw,
        lambda p: store.mask(p, KEEP),
        lambda p: store.mask_gradient(p, KEEP),
        lambda p: store.restrict(p, KEEP),
        lambda p: store.update(p, lambda value, lr: value),
        lambda p: store.replace(p, torch.ones(1)),
    ]
    for call in calls:
        with pytest.raises(AdapterError, match="not one of this adapter's"):
            call(other.w)


def test_a_parameter_outside_the_optimizer() -> None:
    part = Part(5)
    store = ParamStore(torch.optim.AdamW([torch.ones(1)], 0.1), [part])
    store.freeze(part.w)
    for call in (store.lr, store.thaw):
        with pytest.raises(AdapterError, match="not in the optimizer the adapter was bound to"):
            call(part.w)
    assert not part.w.requires_grad
    store.mask(part.w, KEEP)
    store.forget(part.w)
    assert torch.equal(store.replace(part.w, torch.ones(2)), torch.ones(2))


def test_one_history_of_all_parameters_cannot_follow() -> None:
    part = Part(5)
    store = ParamStore(torch.optim.LBFGS([part.w]), [part])
    before = part.w.detach().clone()
    for call in (
        lambda: store.mask(part.w, KEEP),
        lambda: store.restrict(part.w, KEEP),
        lambda: store.forget(part.w),
        lambda: store.replace(part.w, torch.ones(2)),
    ):
        with pytest.raises(AdapterError, match="L-BFGS keeps one history"):
            call()
    assert torch.equal(part.w, before)
    store.update(part.w, lambda value, lr: value * 2)
    assert torch.equal(part.w, 2 * before)
