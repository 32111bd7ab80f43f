"""Tasks: model + data + loss + metrics. A domain pack subclasses `Task`; core knows no domain."""

from __future__ import annotations

from peftx.tasks.contract import Batch, Batches, Meter, ModelSource, Task

__all__ = ["Batch", "Batches", "Meter", "ModelSource", "Task"]
