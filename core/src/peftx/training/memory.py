"""Peak memory of a stretch of work, measured so that rows of one table can be compared.

On a GPU the allocator's own peak counter is exact. On a CPU there is none: a thread samples the resident set
and the level before the work is subtracted, after garbage was collected and free pages were handed back. That
figure carries the allocator's and the sampling's noise (a few MiB), so it always travels with a word on how
it was measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import psutil
import torch
from torch import Tensor

__all__ = ["PeakMemory", "address", "bytes_of", "optimizer_bytes"]

INTERVAL = 0.005  # seconds between two samples of the resident set


class PeakMemory:
    """Context manager; afterwards `bytes` is the peak above the level at entry and `how` says what was
    measured."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.bytes = 0
        above = "above the level before the row, validation left out"
        if self.device.type == "cuda":
            self.how = f"peak of the CUDA allocator {above}"
        else:
            self.how = f"peak resident set, sampled every {INTERVAL * 1000:g} ms, {above}"
        self._stop, self._pause = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._start = 0
        self._peak = 0

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = self._peak = torch.cuda.memory_allocated(self.device)
            return self
        _trim()
        self._process = psutil.Process()
        self._start = self._peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._sample, name="peftx-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        else:
            self._stop.set()
            assert self._thread is not None
            self._thread.join()
        self._look()
        self.bytes = max(0, self._peak - self._start)

    @property
    def peak(self) -> int:
        """The peak so far, in bytes above the level at entry."""
        self._look()
        return max(0, self._peak - self._start)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block nothing is measured; what it leaves behind for good counts afterwards."""
        self._look()
        self._pause.set()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            else:
                _trim()
            self._pause.clear()

    def _look(self) -> None:
        if self.device.type == "cuda":
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self.device))
        else:
            self._peak = max(self._peak, self._process.memory_info().rss)

    def _sample(self) -> None:
        while not self._stop.wait(INTERVAL):
            if not self._pause.is_set():
                self._look()


def _trim() -> None:
    """Hand free heap pages back, or the next row would reuse them unseen. Only glibc can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes an optimizer keeps beside the parameters: the tensors of its state, each storage once."""
    return bytes_of(_tensors_in(optimizer.state))


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for part in value for tensor in _tensors_in(part)]


def bytes_of(tensors: Iterable[Tensor], but: Collection[Any] = ()) -> int:
    """Return the bytes of tensors, each storage once and without those whose `address` is in `but`."""
    sizes = {address(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(size for address, size in sizes.items() if address not in but)


def address(tensor: Tensor) -> tuple[torch.device, int]:
    """Return what tells the storage of a tensor from others."""
    return tensor.device, tensor.untyped_storage().data_ptr()
