"""What a trained method costs besides its parameters: bytes kept for the backward pass, time of a forward, time of a
switch. One routine for every method, so that the rows of a table can be compared.

Bytes are counted and exact. Times are ratios of forwards taken in turn, so that what else the machine does meets both.
docs/runs.md says what each figure means.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from peftx import artifacts
from peftx.adapters import Adapted
from peftx.config.run import TrainConfig
from peftx.plugins.targets import one_line
from peftx.tasks.contract import Batch, Task, batch_count, in_context
from peftx.training.accumulation import training_loss
from peftx.training.backend import Backend
from peftx.training.memory import address, bytes_of
from peftx.training.seeds import generator, random_state, set_random_state
from peftx.training.untouched import untouched

__all__ = ["measure", "saved_bytes"]

#: samples of a timed forward, at most
SAMPLES = 32
#: repeats of a comparison: at least so many, and no further one once `BUDGET` seconds are over
LEAST, MOST, BUDGET = 7, 51, 1.0


# --- counted ------------------------------------------------------------------------------------------------
class _Holder:
    """Stands for one kept tensor in the graph, and goes with it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_bytes(model: nn.Module, task: Task, batch: Batch, backend: Backend) -> int:
    """Return the bytes autograd keeps between the forward and the backward pass of one training batch.

    Every storage counts once; the model's parameters and buffers do not, nor does what a custom operation keeps outside
    autograd. Copies that mixed precision makes of the weights count where they are kept. Under activation checkpointing
    it is what the checkpointed blocks keep to be computed again (their inputs), not what that computation will make for
    a moment, block by block.

    Leaves no trace: random numbers, gradients, training modes, running statistics and the schedules of adapters are
    what they were.

    Raises:
        AdapterError: an adapter changes over the course of training and is not bound to an optimizer.
    """
    own = {address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    holders: weakref.WeakSet[_Holder] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Holder:
        # detached: an output that knew its own node would keep the graph alive
        holder = _Holder(tensor.detach())
        holders.add(holder)
        return holder

    with untouched(model), torch.enable_grad():
        model.train()
        placed = backend.place(batch)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor),
            in_context(task, model, placed),
            backend.autocast(),
        ):
            loss = training_loss(task, model, model, placed)
        # only what the graph still holds: a part of it that was dropped on the way keeps nothing
        kept = bytes_of([holder.tensor for holder in holders], but=own)
        del loss
    return kept


# --- all of it, at the end of a row -------------------------------------------------------------------------
def measure(
    adapted: Adapted,
    task: Task,
    train: TrainConfig,
    backend: Backend,
    *,
    optimizer_bytes: int | None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure what a row's method costs, JSON-ready; None stands for what cannot be measured.

    Uses the model up: nothing can be done with it afterwards. Takes two seconds, or some thirty forwards of at most 32
    samples where those take longer.

    Args:
        adapted: a trained adapter, the only one on its model and still bound to its optimizer.
        task: gives the batches: one of the training split, one of the validation split.
        train: how the row was trained.
        backend: where, and in what precision.
        optimizer_bytes: what the row's optimizer kept, passed on; see the function of that name.
        note: told in one sentence what could not be measured, and why.

    Returns:
        saved_bytes: of one training batch of `saved_batch` samples.
        saved_batch: that number.
        optimizer_bytes: as given.
        forward_overhead: time of the adapted forward over that of the base without adapters.
        merged_overhead: the same of the merged model; None for a method that cannot be merged.
        switch_seconds: time to activate another adapter of the same method.
    """
    figures: dict[str, Any] = {
        "saved_bytes": None,
        "saved_batch": None,
        "optimizer_bytes": optimizer_bytes,
        "forward_overhead": None,
        "merged_overhead": None,
        "switch_seconds": None,
    }
    parts: dict[str, Callable[[], None]] = {
        "the kept bytes": lambda: _keep(figures, adapted, task, train, backend),
        "the time of a switch": lambda: _switch(figures, adapted, backend),
        "the time of a forward": lambda: _forwards(figures, adapted, task, train, backend),  # uses it up
    }
    random = random_state()
    try:
        for what, part in parts.items():
            try:
                part()
            except Exception as error:  # a missing figure must not cost a trained row
                if note is not None:
                    note(f"{what} could not be measured ({one_line(error)})")
    finally:
        set_random_state(random)
    return figures


def _keep(
    figures: dict[str, Any], adapted: Adapted, task: Task, train: TrainConfig, backend: Backend
) -> None:
    draws = generator(0, "efficiency")  # the same samples in every row
    batch = next(iter(task.batches("train", train.batch_size, train=True, generator=draws)))
    figures["saved_bytes"] = saved_bytes(adapted.model, task, batch, backend)
    figures["saved_batch"] = batch_count(batch)


def _switch(figures: dict[str, Any], adapted: Adapted, backend: Backend) -> None:
    """Attach another adapter of the same method, and activate one and the other in turn."""
    here = adapted.attachment()
    held = sum(tensor.nbytes for tensor in adapted.tensors().values())
    if not _fits(backend.device, held):
        return
    adapted.attach(type(here.method), name="other", config=here.config)
    try:
        times = []
        stop = time.perf_counter() + BUDGET / 10
        for turn in range(2 * MOST):
            started = time.perf_counter()
            adapted.activate("other" if turn % 2 else here.name)
            times.append(time.perf_counter() - started)
            if turn >= 2 * LEAST and time.perf_counter() > stop:
                break
        figures["switch_seconds"] = median(times)
    finally:
        adapted.remove("other")
        adapted.activate(here.name)


def _forwards(
    figures: dict[str, Any], adapted: Adapted, task: Task, train: TrainConfig, backend: Backend
) -> None:
    """Time the adapted forward against the base, then the merged one against the same base.

    The base is a copy without adapters. Merging works in place, so the base has to be another object to be there for
    both comparisons. Where there is no memory for a copy, it is the model itself with its adapters switched off,
    and the merged forward is compared with the times of that before.
    """
    batch = backend.place(next(iter(task.batches(task.probe_split, min(train.batch_size, SAMPLES)))))
    model = adapted.model.eval()
    bare = _bare_copy(adapted, backend.device)

    def forward(which: nn.Module) -> None:
        with torch.no_grad(), in_context(task, which, batch), backend.autocast():
            task.forward(which, batch)

    def base() -> None:
        with adapted.disabled() if bare is None else nullcontext():
            forward(model if bare is None else bare)

    clock = _clock(backend.device)
    ours, theirs = _take_turns(clock, lambda: forward(model), base)
    figures["forward_overhead"] = _ratio(ours, theirs)
    if not adapted.merges:
        return
    artifacts.merge(adapted, check=False)
    if bare is not None:
        figures["merged_overhead"] = _ratio(*_take_turns(clock, lambda: forward(model), base))
    else:
        merged, _ = _take_turns(clock, lambda: forward(model), lambda: None)
        figures["merged_overhead"] = median(merged) / median(theirs)


def _take_turns(
    clock: Callable[[Callable[[], None]], float], one: Callable[[], None], other: Callable[[], None]
) -> tuple[list[float], list[float]]:
    """Seconds of two calls, taken in turn. Entry i of both is of the same repeat; each comes first in every other."""
    times: tuple[list[float], list[float]] = ([], [])
    stop = time.perf_counter() + BUDGET
    one()  # what happens once (caches, the choice of an algorithm) belongs to neither
    other()
    for repeat in range(MOST):
        for index in (0, 1) if repeat % 2 == 0 else (1, 0):
            times[index].append(clock((one, other)[index]))
        if repeat + 1 >= LEAST and time.perf_counter() > stop:
            break
    return times


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def _clock(device: torch.device) -> Callable[[Callable[[], None]], float]:
    """A function that returns the seconds of a call: of the GPU, or of all the processor's cores together."""

    def events(call: Callable[[], None]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def passing(call: Callable[[], None]) -> float:
        started = time.perf_counter()
        call()
        if device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - started

    def processor(call: Callable[[], None]) -> float:
        started = time.process_time()
        call()
        return time.process_time() - started

    if device.type == "cuda":
        return events
    # on some systems the clock of the process is too coarse to see a forward
    fine = time.get_clock_info("process_time").resolution < 1e-4
    return processor if device.type == "cpu" and fine else passing


def _bare_copy(adapted: Adapted, device: torch.device) -> nn.Module | None:
    """The base alone, another object; None where there is no memory for it."""
    model = adapted.model
    if not _fits(device, bytes_of([*model.parameters(), *model.buffers()])):
        return None
    try:
        return Adapted(copy.deepcopy(model)).detach()
    except (torch.OutOfMemoryError, MemoryError):
        return None


def _fits(device: torch.device, needed: int) -> bool:
    """Whether a device has twice as many bytes left: a processor that runs out of memory ends the process."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return 2 * needed < torch.cuda.mem_get_info(device)[0] + cached
    return 2 * needed < int(psutil.virtual_memory().available)
