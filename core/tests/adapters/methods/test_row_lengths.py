"""Row lengths are measured once for a state of W, A and B, and no training notices."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import peftx
from peftx.adapters.methods import row_lengths
from peftx.adapters.methods.dora import DoRADelta
from peftx.adapters.methods.row_lengths import RowLengths
from peftx_kernels import dora_norm, row_sq


class Counted:
    """`dora_norm` and `row_sq`, and how often each was called."""

    def __init__(self) -> None:
        self.norms = self.squares = 0

    def norm(self, *given: Any) -> Tensor:
        self.norms += 1
        return dora_norm(*given)

    def square(self, weight: Tensor) -> Tensor:
        self.squares += 1
        return row_sq(weight)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    found = Counted()
    monkeypatch.setattr(row_lengths, "dora_norm", found.norm)
    monkeypatch.setattr(row_lengths, "row_sq", found.square)
    return found


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    row_lengths._steps.inside = False


def tensors() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    weight = nn.Parameter(torch.randn(6, 8), requires_grad=False)
    return weight, nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(6, 2))


def true(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (weight + 0.5 * b @ a).norm(dim=1)


class Net(nn.Module):
    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 8)
        self.conv = nn.Conv1d(8, 6, 3)
        self.head = nn.Linear(6, 3)

    def block(self, h: Tensor) -> Tensor:
        return self.conv(self.second(self.first(h).relu()).transpose(1, 2)).transpose(1, 2)

    def forward(self, ids: Tensor, reentrant: bool | None = None) -> Tensor:
        h = self.table(ids)
        y = self.block(h) if reentrant is None else checkpoint(self.block, h, use_reentrant=reentrant)
        return self.head(y.mean(1))


def made() -> tuple[peftx.Adapted, list[DoRADelta]]:
    torch.manual_seed(0)
    adapted = peftx.attach(Net(), "core.dora", targets=["glob:*"], rank=2)
    deltas = [module for module in adapted.model.modules() if isinstance(module, DoRADelta)]
    assert len(deltas) == 4
    return adapted, deltas


class WritesData(torch.optim.Optimizer):
    """An optimizer of the old kind, whose writes change no version."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad.data, alpha=-0.1)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, foreach=False),
    "foreach": lambda p: torch.optim.AdamW(p, 0.1, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 0.1, fused=True),
    "data": WritesData,
}


def train(optimizer: str, reentrant: bool | None, steps: int = 3, micro: int = 4) -> list[Tensor]:
    adapted, _ = made()
    generator = torch.Generator().manual_seed(1)
    chosen = OPTIMIZERS[optimizer]([p for p in adapted.model.parameters() if p.requires_grad])
    for _ in range(steps):
        for _ in range(micro):
            ids = torch.randint(0, 11, (2, 7), generator=generator)
            adapted.model(ids, reentrant).square().mean().backward()
        chosen.step()
        chosen.zero_grad()
    return [p.detach().clone() for p in adapted.model.parameters()]


@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_measurement_a_step_and_the_same_training(
    optimizer: str, reentrant: bool | None, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = train(optimizer, reentrant)
    assert counted.norms == 4 * 3 and counted.squares == 4  # sites x steps; sites
    monkeypatch.setattr(row_lengths, "_state", lambda *given, **options: None)
    want = train(optimizer, reentrant)
    repeated = 3 if reentrant is not None else 0  # sites inside the checkpoint
    assert counted.norms == 4 * 3 + (4 + repeated) * 3 * 4
    assert all(torch.equal(one, two) for one, two in zip(got, want, strict=True))


def test_every_write_is_noticed(counted: Counted) -> None:
    weight, a, b = tensors()
    lengths = RowLengths()

    def measured() -> int:
        before = counted.norms
        for _ in range(2):
            torch.testing.assert_close(lengths.norms(weight, a, b, 0.5), true(weight, a, b))
        return counted.norms - before

    assert measured() == 1 and measured() == 0
    for tensor in (weight, a, b):
        with torch.no_grad():
            tensor.mul_(1.1)
        assert measured() == 1
        tensor.detach()[0] = 2.0  # through a view
        assert measured() == 1
        tensor.data = tensor.data * 1.1  # other memory
        assert measured() == 1
        torch.nn.init.normal_(tensor)
        assert measured() == 1
    b = nn.Parameter(b.detach().clone())
    assert measured() == 1
    lengths.norms(weight, a, b, 0.25)
    assert counted.norms == 14 + 1
    a.data.mul_(2)  # the one that is not
    assert not torch.allclose(lengths.norms(weight, a, b, 0.25), lengths.norms(weight, a, b, 0.5))
    lengths.norms(weight, a, b, 0.5)
    a.data.mul_(2)
    stale = lengths.norms(weight, a, b, 0.5)
    assert not torch.allclose(stale, true(weight, a, b))
    lengths.forget()
    assert measured() == 1


def test_where_nothing_is_kept(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, a, b = tensors()

    def twice(*given: Tensor) -> int:
        before, lengths = counted.norms, RowLengths()
        for _ in range(2):
            lengths.norms(*given, 0.5)  # type: ignore[call-arg]
        return counted.norms - before

    assert twice(weight, a, b) == 1
    assert twice(weight.t().contiguous().t(), a, b) == 2  # no parameter: its memory may be used again
    assert twice(weight, a * 1, b) == 2
    assert twice(weight.view(6, 2, 4).flatten(1), a, b) == 1
    assert twice(nn.Parameter(weight.detach()), a, b) == 2  # trained
    with torch.inference_mode():
        assert twice(weight, a, b) == 1
        assert twice(nn.Parameter(torch.randn(6, 8), requires_grad=False), a, b) == 2
    monkeypatch.setattr(row_lengths._steps, "inside", True)
    assert twice(weight, a, b) == 2


def test_another_parameter_in_the_same_memory_is_another(counted: Counted) -> None:
    weight, a, b = tensors()
    lengths = RowLengths()
    for other in (b, b, nn.Parameter(b.data)):
        lengths.norms(weight, a, other, 0.5)
    assert counted.norms == 2


def test_after_a_graph_was_recorded_nothing_is_kept(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its replays write to A and B without a word. (Whether one is recorded is asked of CUDA; here it is told.)"""
    weight, a, b = tensors()
    lengths = RowLengths()
    lengths.norms(weight, a, b, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(row_lengths, "_recording", lambda tensor: True)
        for _ in range(2):
            lengths.norms(weight, a, b, 0.5)
    assert (counted.norms, counted.squares) == (3, 3)
    for _ in range(2):
        lengths.norms(weight, a, b, 0.5)
    assert (counted.norms, counted.squares) == (5, 3)


def test_what_inference_kept_serves_training(counted: Counted) -> None:
    adapted, deltas = made()
    ids = torch.randint(0, 11, (2, 7))
    with torch.inference_mode():
        before = adapted.model(ids)
    y = adapted.model(ids)
    assert torch.equal(y, before) and counted.norms == 4
    kept = [found.value for d in deltas for found in (d._lengths._norms, d._lengths._squares) if found]
    assert len(kept) == 8 and not any(value.is_inference() for value in kept)
    y.sum().backward()


def test_inside_an_optimizer_nothing_is_stale() -> None:
    """A closure that is called again after a write through ``.data``."""

    class Twice(WritesData):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for _ in range(2):
                with torch.enable_grad():
                    closure()
                super().step.__wrapped__(self)  # type: ignore[attr-defined]

    adapted, deltas = made()
    ids = torch.randint(0, 11, (2, 7))
    seen = []

    def closure() -> None:
        adapted.model.zero_grad()
        adapted.model(ids).square().sum().backward()
        delta = deltas[1]
        weight = adapted.model.first._parameters["weight"]
        merged = weight + delta.scale * delta.B @ delta.A
        seen.append(
            (delta._lengths.norms(weight, delta.A, delta.B, delta.scale), merged.detach().norm(dim=1))
        )

    chosen = Twice([p for p in adapted.model.parameters() if p.requires_grad])
    chosen.step(closure)
    chosen.step(closure)
    assert len(seen) == 4 and not torch.allclose(seen[0][1], seen[3][1])
    for got, want in seen:
        torch.testing.assert_close(got, want)


def test_loading_copying_and_pickling(counted: Counted) -> None:
    adapted, deltas = made()
    ids = torch.randint(0, 11, (2, 7))
    with torch.no_grad():
        for delta in deltas:
            delta.B.normal_()
            delta.A.normal_()
    first = adapted.model(ids)
    kept = copy.deepcopy(adapted.model.state_dict())
    assert counted.norms == 4
    for assign in (False, True):
        with torch.no_grad():
            for delta in deltas:
                delta.B.zero_()
        assert not torch.allclose(adapted.model(ids), first)
        adapted.model.load_state_dict(copy.deepcopy(kept), assign=assign)
        assert torch.equal(adapted.model(ids), first)
    assert deltas[0]._lengths._norms is not None
    for other in (copy.deepcopy(deltas[0]), pickle.loads(pickle.dumps(deltas[0]))):
        assert other._lengths._norms is None and other._lengths._squares is None
    deltas[0].invalidate()
    assert deltas[0]._lengths._norms is None


def test_a_compiled_model_measures_in_every_call_and_compiles_once() -> None:
    adapted, _ = made()
    ids = torch.randint(0, 11, (2, 7))
    adapted.model(ids)
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(adapted.model, backend=backend)
    chosen = torch.optim.SGD([p for p in adapted.model.parameters() if p.requires_grad], 0.1)
    outputs = []
    for _ in range(3):
        outputs.append(compiled(ids))
        torch.testing.assert_close(outputs[-1], adapted.model(ids))
        outputs[-1].square().sum().backward()
        chosen.step()
    assert not torch.allclose(outputs[0], outputs[2]) and len(graphs) == 1
