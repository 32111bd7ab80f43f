"""Data parallel and sharded training of adapted models, two CPU processes over gloo.

The processes are started once and work through every case, because starting them takes far longer than the training.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import peftx
from peftx.adapters import AdapterMethod, Delta, Insert, Site, SitePlan
from peftx.config.adapter import AdapterConfig

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 12)
        self.norm = nn.LayerNorm(12)
        self.classifier = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(torch.relu(self.fc1(x))))


class Factors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(2, 8))


class Shared(Delta):
    """W + B A, A shared by all sites."""

    def __init__(
        self, site: Site, config: AdapterConfig, weight: Tensor, bias: Tensor | None, bank: Factors
    ) -> None:
        super().__init__(site, bank)
        self.B = nn.Parameter(torch.zeros(site.shape[0], 2))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        bank: Any = self.bank
        return weight + self.B @ bank.A, bias


class Banked(AdapterMethod):
    Delta = Shared
    kinds = ("linear",)

    def bank(self, plan: SitePlan, config: Any) -> Factors:
        return Factors()


class Gate(Insert):
    """y + c y around the block."""

    def __init__(self, site: Site, config: AdapterConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.c = nn.Parameter(torch.zeros(site.shape[0]))

    def insert(self, x: Tensor) -> Tensor:
        return self.c * x


class Gated(AdapterMethod):
    Delta = Gate
    kinds = ("activation",)

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        dtype = torch.float32
        return SitePlan((Site("fc1", "fc1", "activation", "mlp", (12,), dtype, "", product=False),))


OWN: dict[str, Any] = {"bank": Banked, "insert": Gated}


def build(method: str) -> peftx.Adapted:
    torch.manual_seed(0)
    options: dict[str, Any] = (
        {} if method in ("core.full", "core.bitfit", "core.head") else {"targets": ["fc1"]}
    )
    if method != "core.full":
        options["also_train"] = ["classifier"]
    adapted = peftx.attach(Net(), OWN.get(method, method), **options)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return adapted


def data() -> Tensor:
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


def ddp(rank: int, method: str, folder: Path) -> None:
    adapted = build(method)
    # find_unused_parameters stays off: a trained tensor without a gradient would hang or raise
    model = nn.parallel.DistributedDataParallel(adapted.model)
    for _ in range(2):
        adapted.model.zero_grad()
        model(data()[3 * rank : 3 * rank + 3]).square().mean().backward()
    if rank == 0:
        torch.save({key: p.grad for key, p in adapted.named_parameters()}, folder / "grads.pt")


def shard(adapted: peftx.Adapted) -> None:
    from torch.distributed.fsdp import fully_shard

    dist.device_mesh.init_device_mesh("cpu", (2,))
    fully_shard(adapted.model.fc1)
    fully_shard(adapted.model)


def fsdp2(rank: int, method: str, folder: Path) -> None:
    adapted = build(method)
    shard(adapted)
    adapted.model(data()[3 * rank : 3 * rank + 3]).square().mean().backward()
    grads = {key: p.grad.full_tensor() for key, p in adapted.named_parameters()}
    if rank == 0:
        torch.save(grads, folder / "grads.pt")


def fsdp2_training(rank: int, method: str, folder: Path) -> None:
    adapted = build(method)
    shard(adapted)
    train(adapted, data()[3 * rank : 3 * rank + 3])
    peftx.artifacts.save(adapted, folder / "adapter")


CASES: dict[Callable[[int, str, Path], None], list[str]] = {
    ddp: ["core.lora", "core.dora", "core.bitfit", "core.full", "bank"],
    fsdp2: ["core.lora", "bank", "insert"],
    fsdp2_training: ["core.lora", "core.dora"],
}


def work(
    rank: int, port: int, cases: list[tuple[Callable[[int, str, Path], None], str]], folder: str
) -> None:
    """One of the two processes: every case in turn, in a folder of its own, which `done` says is whole."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for case, method in cases:
        own = Path(folder) / f"{case.__name__}-{method}"
        own.mkdir(exist_ok=True)
        case(rank, method, own)
        dist.barrier()
        (own / "done").touch()
    dist.destroy_process_group()
    # leave at once: gloo's threads may still run while the interpreter takes itself apart, which then aborts
    os._exit(0)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[..., None], str], Path]:
    """A function of a case and a method that returns the folder which two processes filled, or raises what they did."""
    folder = tmp_path_factory.mktemp("distributed")
    waiting = [(case, method) for case, methods in CASES.items() for method in methods]
    errors: dict[str, Exception] = {}
    while waiting:  # once, unless a case fails: then again with those behind it
        try:
            mp.spawn(work, args=(free_port(), waiting, str(folder)), nprocs=2, join=True)
            break
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            while waiting and (folder / f"{waiting[0][0].__name__}-{waiting[0][1]}" / "done").exists():
                waiting.pop(0)
            if not waiting:
                raise
            case, method = waiting.pop(0)
            errors[f"{case.__name__}-{method}"] = error

    def found(case: Callable[..., None], method: str) -> Path:
        name = f"{case.__name__}-{method}"
        if name in errors:
            raise errors[name]
        return folder / name

    return found


def train(adapted: peftx.Adapted, x: Tensor) -> None:
    optimizer = torch.optim.AdamW(adapted.param_groups(lr=1e-2, weight_decay=0.1))
    adapted.bind(optimizer, total_steps=4)
    for _ in range(4):
        adapted.model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compare(method: str, folder: Path) -> None:
    got = torch.load(folder / "grads.pt", weights_only=True)
    single = build(method)
    single.model(data()).square().mean().backward()
    expected = {key: p.grad for key, p in single.named_parameters()}
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert value is not None and torch.allclose(got[key], value, atol=1e-6), key


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES[ddp])
def test_two_processes_give_the_gradient_of_one(method: str, result: Callable[..., Path]) -> None:
    compare(method, result(ddp, method))


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES[fsdp2])
def test_sharded_after_attaching(method: str, result: Callable[..., Path]) -> None:
    compare(method, result(fsdp2, method))


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES[fsdp2_training])
def test_sharded_training_and_its_file(method: str, result: Callable[..., Path]) -> None:
    """Two processes with half of every parameter train what one does, and save it whole."""
    single = build(method)
    train(single, data())
    loaded = peftx.artifacts.load(build_base(), result(fsdp2_training, method) / "adapter")
    found, wanted = loaded.tensors(), single.tensors()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def build_base() -> Net:
    torch.manual_seed(0)
    return Net()
