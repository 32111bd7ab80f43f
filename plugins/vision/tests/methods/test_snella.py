from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import AdapterError, ConfigError
from peftx_vision.methods.snella import Competition, SNELLADelta


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(12, 30), nn.Linear(30, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


def bound(total: int = 20, **options: Any) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    options = {"targets": ["one", "two"], "scale": 2.0, "rank": 4, **options}
    adapted = peftx.attach(Net(), "vision.snella", **options)
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=1e-2)
    adapted.bind(optimizer, total_steps=total)
    adapted.model.train()
    return adapted, optimizer


def step(adapted: Any, optimizer: torch.optim.Optimizer, seed: int = 0) -> float:
    x = torch.randn(16, 12, generator=torch.Generator().manual_seed(seed))
    loss = (adapted.model(x) - x[:, :3]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def deltas(adapted: Any) -> list[SNELLADelta]:
    return [m for m in adapted.model.modules() if isinstance(m, SNELLADelta)]


def kept(adapted: Any) -> list[int]:
    return [int(d.kept) for d in deltas(adapted)]


ENTRIES = 12 * 30 + 30 * 20


def test_training_needs_bind() -> None:
    adapted = peftx.attach(Net(), "vision.snella", targets=["one"])
    adapted.model.eval()(torch.randn(2, 12))
    with pytest.raises(AdapterError, match="bind"):
        adapted.model.train()(torch.randn(2, 12))
    # the variant without a budget has nothing to drive
    free = peftx.attach(Net(), "vision.snella", targets=["one"], mixk=True)
    free.model.train()(torch.randn(2, 12))


def test_the_budget_falls_reaches_the_target_and_stays() -> None:
    adapted, optimizer = bound(40)
    totals, states = [], []
    for number in range(40):
        assert not adapted.settled or number >= 36
        step(adapted, optimizer, number)
        totals.append(sum(kept(adapted)))
        states.append(kept(adapted))
    assert totals == sorted(totals, reverse=True)
    assert totals[0] < int(0.99 * ENTRIES)
    assert len(set(totals)) > 20  # many allocations, also in a short training
    assert totals[35:] == [int(0.2 * ENTRIES)] * 5 and states[35] == states[-1]
    assert totals[30] > totals[35]
    assert adapted.settled
    assert len(set(states[-1])) == 2  # the maps are not alike


def test_loss_falls_through_the_competition() -> None:
    adapted, optimizer = bound(60)
    losses = [step(adapted, optimizer) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.isfinite().all() for p in adapted.parameters())


def test_allocations_can_be_fewer() -> None:
    adapted, optimizer = bound(40, allocations=4)
    totals = []
    for number in range(40):
        step(adapted, optimizer, number)
        totals.append(sum(kept(adapted)))
    assert len(set(totals)) == 5  # the start, three on the way, the target
    assert totals[-1] == int(0.2 * ENTRIES)


def test_warmup_leaves_the_sparsity_alone() -> None:
    adapted, optimizer = bound(20, warmup=0.5, hold=0.2)
    first = kept(adapted)
    for number in range(10):
        step(adapted, optimizer, number)
        assert kept(adapted) == first
    step(adapted, optimizer)
    assert kept(adapted) != first


@pytest.mark.parametrize("total", [1, 2, 3, 10])
@pytest.mark.parametrize("options", [{}, {"warmup": 0.96}, {"warmup": 0.6, "hold": 0.9}, {"hold": 0.0}])
def test_the_target_is_reached_in_any_length(total: int, options: dict[str, float]) -> None:
    adapted, optimizer = bound(total, **options)
    for number in range(total):
        step(adapted, optimizer, number)
        assert adapted.settled or number < total - 2
    assert sum(kept(adapted)) == int(0.2 * ENTRIES)


def test_official_epochs() -> None:
    adapted, optimizer = bound(40, allocate="epoch", epochs=10)
    seen = []
    for number in range(40):
        step(adapted, optimizer, number)
        seen.append(sum(kept(adapted)))
    changes = [i + 1 for i in range(1, 40) if seen[i] != seen[i - 1]]
    assert changes == [4, 8, 12, 16, 20, 24, 28, 32, 36]  # at the end of an epoch's last step
    want = [int(ENTRIES * (0.2 + 0.79 * (1 - e / 10) ** 3) + 1e-6) for e in range(1, 10)]
    assert [seen[i] for i in range(4, 40, 4)] == want
    assert adapted.settled
    late, optimizer = bound(40, allocate="epoch", epochs=10, initial_warmup=2, final_warmup=3)
    totals = []
    for number in range(40):
        step(late, optimizer, number)
        totals.append(sum(kept(late)))
    assert len(set(totals[:11])) == 1 and totals[11] < totals[10]
    assert totals[-1] == int(0.2 * ENTRIES)


def test_epochs_in_which_nothing_would_compete_are_refused() -> None:
    with pytest.raises(ConfigError, match="initial_warmup 5 leaves none of 3 epochs"):
        bound(40, allocate="epoch", epochs=3, initial_warmup=5)
    late, optimizer = bound(40, allocate="epoch", epochs=7, initial_warmup=5)  # part 6, from 0, is the last
    for number in range(40):
        step(late, optimizer, number)
    assert sum(kept(late)) < int(0.99 * ENTRIES)


def test_uniform_importance_gives_equal_sparsities() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    adapted = peftx.attach(model, "vision.snella", targets="all-linear", also_train=[])
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.0)
    adapted.bind(optimizer, total_steps=2)
    for parameter in adapted.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step()
    assert kept(adapted) == [20, 20]  # no score at all: by size


def test_scores_are_of_moved_values_and_uncleared_gradients() -> None:
    adapted, optimizer = bound(20)
    schedule = next(iter(adapted._board.binding.running.values())).schedule
    assert isinstance(schedule, Competition)
    x = torch.randn(16, 12)
    adapted.model(x).square().mean().backward()
    delta = deltas(adapted)[0]
    gradient = delta.A.grad.clone()
    before = delta.A.detach().clone()
    optimizer.step()
    mean = schedule.importance[delta.site.key][0].mean
    torch.testing.assert_close(mean, 0.15 * (delta.A.detach() * gradient).abs())
    assert not torch.allclose(mean, 0.15 * (before * gradient).abs(), rtol=1e-3, atol=0)


def test_a_restart_goes_on_where_it_was() -> None:
    whole, optimizer = bound(20)
    for number in range(8):
        step(whole, optimizer, number)
    state = {
        "model": copy.deepcopy(whole.model.state_dict()),
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "schedule": copy.deepcopy(whole._board.binding.state_dict()),
    }
    for number in range(8, 20):
        step(whole, optimizer, number)
    again, second = bound(20)
    again.model.load_state_dict(state["model"])
    second.load_state_dict(state["optimizer"])
    again._board.binding.load_state_dict(state["schedule"])
    for number in range(8, 20):
        step(again, second, number)
    assert kept(again) == kept(whole)
    x = torch.randn(4, 12)
    assert torch.equal(again.model.eval()(x), whole.model.eval()(x))


def test_a_state_of_another_adapter_is_refused() -> None:
    state = bound()[0].schedule_state()
    for options in ({"targets": ["one"]}, {"targets": ["two"]}, {"rank": 6}):
        other, _ = bound(**options)
        with pytest.raises(AdapterError, match="saved with this adapter"):
            other.load_schedule_state(state)


def test_one_adapter_after_another_goes_on() -> None:
    def two() -> Any:
        torch.manual_seed(0)
        adapted = peftx.attach(Net(), "vision.snella", name="a", targets=["one"], also_train=[])
        adapted.model.train()
        return adapted

    def train(adapted: Any, steps: int) -> None:
        optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
        adapted.bind(optimizer, total_steps=4)
        for number in range(steps):
            step(adapted, optimizer, number)

    adapted = two()
    train(adapted, 4)
    adapted.attach("vision.snella", name="b", targets=["two"], also_train=[])
    train(adapted, 2)
    again = two()
    again.attach("vision.snella", name="b", targets=["two"], also_train=[])
    with pytest.raises(AdapterError, match="no adapter"):
        again.load_schedule_state(adapted.schedule_state())  # b is trained, and nobody drives it
    train(again, 0)
    again.load_schedule_state(adapted.schedule_state())
    assert again._board.binding.running["b"].step == 2


def test_the_artifact_holds_every_sparsity(tmp_path: Path) -> None:
    adapted, optimizer = bound(20)
    for number in range(12):
        step(adapted, optimizer, number)
    adapted.model.eval()
    x = torch.randn(4, 12)
    y = adapted.model(x)
    artifacts.save(adapted, tmp_path / "a")
    torch.manual_seed(0)
    loaded = artifacts.load(Net(), tmp_path / "a")
    assert kept(loaded) == kept(adapted) and len(set(kept(loaded))) == 2
    assert torch.equal(loaded.model.eval()(x), y)


def test_averaged_models_share_the_budget() -> None:
    """The official code evaluates its averaged model at the sparsity of the start."""
    adapted, optimizer = bound(20)
    average = torch.optim.swa_utils.AveragedModel(
        adapted.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for number in range(20):
        step(adapted, optimizer, number)
        average.update_parameters(adapted.model)
    theirs = [m for m in average.modules() if isinstance(m, SNELLADelta)]
    assert [int(d.kept) for d in theirs] == kept(adapted)
    assert [d.rate() for d in theirs] == [d.rate() for d in deltas(adapted)]


def test_half_precision_keeps_the_counts() -> None:
    adapted, _ = bound()
    delta = deltas(adapted)[0]
    delta.kept.fill_(123)
    adapted.model.half()
    assert int(delta.kept) == 123 and delta.rate() == 1 - 123 / 360


def test_equals_snell_without_the_mixture() -> None:
    torch.manual_seed(0)
    net = Net()
    snella = peftx.attach(copy.deepcopy(net), "vision.snella", targets=["one", "two"])
    snell = peftx.attach(copy.deepcopy(net), "vision.snell", targets=["one", "two"], sparsity=0.75)
    others = [m for m in snell.model.modules() if hasattr(m, "A")]
    with torch.no_grad():
        for one, two in zip(deltas(snella), others, strict=True):
            one.alpha.zero_()
            one.kept.fill_(one.site.numel // 4)
            one.A.copy_(two.A)
            one.B.copy_(two.B)
    x = torch.randn(5, 12)
    torch.testing.assert_close(snella.model.eval()(x), snell.model.eval()(x), rtol=0, atol=1e-7)
    for one, two in zip(deltas(snella), others, strict=True):
        assert torch.equal(one.update(), two.update())


def test_alpha_gamma_beta_are_trained_and_start_as_said() -> None:
    adapted, optimizer = bound()
    delta = deltas(adapted)[0]
    assert [float(t) for t in (delta.alpha, delta.gamma, delta.beta)] == [1.0, 1.0, 0.0]
    step(adapted, optimizer)
    assert float(delta.alpha) != 1.0 and float(delta.gamma) != 1.0 and float(delta.beta) != 0.0


def test_compiles_in_one_graph_whatever_the_budget() -> None:
    adapted, _ = bound()
    model, x = adapted.model.eval(), torch.randn(4, 12)
    graphs: list[Any] = []

    def counted(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=counted)
    for divisor in (1, 2, 10):
        for delta in deltas(adapted):
            delta.kept.fill_(delta.site.numel // divisor)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)
    assert len(graphs) == 1
