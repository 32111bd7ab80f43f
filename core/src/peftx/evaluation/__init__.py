"""Evaluation: metrics that count exactly, and the one way every score is taken."""

from __future__ import annotations

from peftx.evaluation.classification import ClassificationMeter
from peftx.tasks.scoring import evaluate

__all__ = ["ClassificationMeter", "evaluate"]
