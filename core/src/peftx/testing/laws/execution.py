"""Laws of how torch runs it: other precisions, compiled, checkpointed, in two processes."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from peftx.adapters.handle import Adapted
from peftx.testing.cases import case_named
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.trial import Subject, Trial, far, near, perturb, scale_of

__all__ = ["autocast", "bf16_base", "checkpointing", "compiled", "ddp"]


def _finite_gradients(adapted: Adapted, where: str) -> None:
    for (site, slot), tensor in adapted.tensors().items():
        if tensor.requires_grad:
            demand(tensor.grad is not None, f"{where}, {slot} at {site} got no gradient")
            assert tensor.grad is not None
            demand(
                torch.isfinite(tensor.grad).all(), f"{where}, the gradient of {slot} at {site} is not finite"
            )
            demand(
                tensor.grad.dtype == tensor.dtype,
                f"{where}, the gradient of {slot} at {site} is {tensor.grad.dtype}",
            )


@law("method", each_case=True, needs=["gradients"])
def autocast(trial: Trial) -> None:
    """Under autocast to bfloat16 the adapter acts as in float32, within rounding, and trains."""
    model = trial.build().requires_grad_(False)  # frozen, so that torch takes the same shortcuts in both
    try:
        with torch.autocast("cpu", torch.bfloat16):
            base = trial.run(model)
    except RuntimeError as error:
        raise NotApplicable(f"the model itself does not run under autocast: {_first_line(error)}") from None
    base32 = trial.run(model)
    adapted = trial.attach(model)
    perturb(adapted.parameters())
    wanted = trial.run(model).detach()
    with torch.autocast("cpu", torch.bfloat16):
        y = trial.run(model)
    # what the bare model loses to rounding, the adapted one may lose several times over; and one that is moved far from
    # its start loses more, which float32 shows as well where it is rounded between layers
    rounding = far(base, base32) / scale_of(base32)
    moved = far(_rounded(trial, model), wanted) / scale_of(wanted)
    near(y, wanted, 0.05 + 8 * rounding + 2 * moved, "the adapted model under autocast and in float32")
    change = far(y, base)
    demand(change > 1e-3, f"under autocast, moving every parameter changed the output by {change:.2g}")
    y.float().square().sum().backward()
    _finite_gradients(adapted, "under autocast")


def _rounded(trial: Trial, model: nn.Module) -> Tensor:
    """The output in float32 where everything that goes from layer to layer is rounded to bfloat16."""

    def round_all(values: Any) -> Any:
        return tree_map(lambda value: value.bfloat16().to(value.dtype) if _is_float(value) else value, values)

    hooks: list[Any] = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(lambda module, inputs: round_all(inputs)))
        hooks.append(module.register_forward_hook(lambda module, inputs, outputs: round_all(outputs)))
    try:
        return trial.run(model).detach()
    finally:
        for hook in hooks:
            hook.remove()


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@law("method", each_case=True, needs=["gradients", "starts_as"])
def bf16_base(trial: Trial) -> None:
    """On a bfloat16 base the adapter keeps float32, starts as declared, shows and trains."""
    dtype = torch.bfloat16
    model = trial.build(dtype)
    inputs = trial.inputs(dtype=dtype)
    try:
        base = trial.run(model, inputs).detach()
    except RuntimeError as error:
        raise NotApplicable(f"the model itself does not run in bfloat16: {_first_line(error)}") from None
    adapted = trial.attach(model)
    for (site, slot), tensor in adapted.tensors().items():
        if tensor.requires_grad:
            demand(
                tensor.dtype.itemsize >= 4,
                f"{slot} at {site} is trained in {tensor.dtype}; use `self.parameter_dtype`",
            )
    start = trial.run(model, inputs).detach()
    demand(start.dtype == dtype, f"the output is {start.dtype}, the base's is {dtype}")
    if trial.method.starts_as != "shifted":
        near(start, base, 0.05, f"declared {trial.method.starts_as}, the adapted model and the base")
    perturb(adapted.parameters())
    y = trial.run(model, inputs)
    demand(far(y, start) > 1e-2, "moving every parameter does not change the output")
    y.float().square().sum().backward()
    _finite_gradients(adapted, "on a bfloat16 base")


def _first_line(error: BaseException) -> str:
    """The type and first telling line of an error; the compiler's wrapper only says that something was raised."""
    text = [line for line in str(error).strip().splitlines() if line.strip()]
    if len(text) > 1 and text[0].rstrip().endswith("raised:"):
        text = text[1:]
    return f"{type(error).__name__}: {text[0] if text else ''}"[:200]


def _fullgraph(counted: Any, model: nn.Module) -> Any:
    return torch.compile(model, fullgraph=True, backend=counted)


@law("method", each_case=True, needs=["starts_as"], cost="slow")
def compiled(trial: Trial) -> None:
    """Torch.compile makes one graph of it with the same values, and at most one more across switches."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    try:
        bare = trial.build()
        try:
            with torch.no_grad():
                trial.case.call(_fullgraph("eager", bare), *trial.inputs())
        except Exception as error:
            raise NotApplicable(
                f"the model itself does not compile in one graph: {_first_line(error)}"
            ) from None
        torch._dynamo.reset()
        model = trial.build()
        adapted = trial.attach(model, "a")
        perturb(adapted.parameters("a"))
        trial.attach(model, "b", seed=41)
        perturb(adapted.parameters("b"), seed=43)
        counter = CompileCounterWithBackend("aot_eager")
        graph = _fullgraph(counter, model)
        outputs: dict[str, Tensor] = {}
        for name in ("a", "b", "a", "b"):
            adapted.activate(name)
            wanted = trial.run(model)
            with trial.setting(model):
                torch.manual_seed(5)
                y = trial.case.call(graph, *trial.inputs())
            near(y, wanted, 5e-5, "the compiled model and the eager one")
            outputs[name] = y
        demand(
            far(outputs["a"], outputs["b"]) > 1e-4,
            "compiled, switching the adapter does not change the output",
        )
        demand(
            counter.frame_count <= 2,
            f"{counter.frame_count} graphs were made across four switches of two adapters, at most 2 are allowed",
        )
    except (LawError, NotApplicable):
        raise
    except Exception as error:
        raise LawError(f"torch.compile(fullgraph=True) raised {_first_line(error)}") from error
    finally:
        torch._dynamo.reset()


@law("method", each_case=True, needs=["deterministic"])
def checkpointing(trial: Trial) -> None:
    """Under activation checkpointing the gradients are the same, also of a backward outside the context."""
    found: list[dict[str, Tensor]] = []
    for checkpointed in (False, True):
        model = trial.build()
        adapted = trial.attach(model)
        perturb(adapted.parameters())
        inputs = tuple(
            x.requires_grad_() if x.is_floating_point() else x for x in (t.clone() for t in trial.inputs())
        )
        with trial.setting(model):
            torch.manual_seed(5)
            if checkpointed:
                y = checkpoint(_caller(trial, model), *inputs, use_reentrant=False)
            else:
                y = trial.case.call(model, *inputs)
        torch.manual_seed(17)
        (y * torch.randn(y.shape)).sum().backward()
        found.append({key: p.grad for key, p in adapted.named_parameters() if p.grad is not None})
    plain, again = found
    demand(plain.keys() == again.keys(), "other parameters get a gradient when blocks are computed again")
    for key, gradient in plain.items():
        near(again[key], gradient, 1e-5, f"the gradient of {key} with and without checkpointing")


def _caller(trial: Trial, model: nn.Module) -> Callable[..., Tensor]:
    return lambda *inputs: trial.case.call(model, *inputs)


@law("method", each_case=True, needs=["gradients"], cost="asked")
def ddp(trial: Trial) -> None:
    """Two processes under DistributedDataParallel get the gradient of one (asked for by name)."""
    if not dist.is_available() or not dist.is_gloo_available():
        raise NotApplicable("torch was built without gloo")
    if not trial.subject.registered:
        raise NotApplicable("another process can only make a method that a plugin declares")
    if not isinstance(trial.run(trial.build()), Tensor) or trial.case.requires:
        raise NotApplicable("judged on the models of torch alone")
    from torch.multiprocessing.spawn import spawn

    with tempfile.TemporaryDirectory() as folder:
        arguments = (_free_port(), trial.subject.given, trial.subject.options, trial.case.name, folder)
        try:
            spawn(_worker, args=arguments, nprocs=2, join=True)
        except Exception as error:
            raise LawError(f"DistributedDataParallel failed: {_last_line(error)}") from error
        file = Path(folder) / "grads.pt"
        got: dict[str, Tensor] = torch.load(file, weights_only=True)
    adapted = _for_ddp(trial)
    _half_losses(trial, adapted.model, slice(None))
    for key, parameter in adapted.named_parameters():
        assert parameter.grad is not None
        near(got[key], parameter.grad, 1e-5, f"the gradient of {key} in two processes and in one")


def _for_ddp(trial: Trial) -> Adapted:
    adapted = trial.attach(trial.build())
    perturb(adapted.parameters())
    return adapted


def _half_losses(trial: Trial, model: nn.Module, rows: slice) -> None:
    inputs = tuple(x[rows] for x in trial.inputs())
    with trial.setting(getattr(model, "module", model), rows=rows):
        trial.case.call(model, *inputs).square().mean().backward()


def _worker(rank: int, port: int, method: str, options: dict[str, Any], case: str, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    trial = Trial(Subject(method, options), case_named(case))
    adapted = _for_ddp(trial)
    # find_unused_parameters stays off: a trained tensor without a gradient would hang or raise
    model = nn.parallel.DistributedDataParallel(adapted.model)
    for _ in range(2):
        adapted.model.zero_grad()
        _half_losses(trial, model, slice(2 * rank, 2 * rank + 2))
    if rank == 0:
        torch.save({key: p.grad for key, p in adapted.named_parameters()}, Path(folder) / "grads.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may still run while the interpreter takes itself apart, which then aborts


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[-1][:200] if text else type(error).__name__
