"""Tasks: model + data + loss + metrics. A domain pack subclasses `Task`; core knows no domain."""

from __future__ import annotations

from peftx.tasks.contract import Batch, Batches, DetailedMeter, Meter, ModelSource, Scores, Task
from peftx.tasks.models import ModelMethod

__all__ = ["Batch", "Batches", "DetailedMeter", "Meter", "ModelMethod", "ModelSource", "Scores", "Task"]
