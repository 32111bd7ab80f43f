"""Evaluation: metrics that count exactly, and the one way every score is taken."""

from __future__ import annotations

from peftx.evaluation.calibration import (
    ace,
    ace_top_label,
    brier,
    classwise_ece,
    ece,
    mce,
    reliability,
    tace,
)
from peftx.evaluation.classification import ClassificationMeter
from peftx.evaluation.reliability import Reliability
from peftx.tasks.scoring import evaluate

__all__ = [
    "ClassificationMeter",
    "Reliability",
    "ace",
    "ace_top_label",
    "brier",
    "classwise_ece",
    "ece",
    "evaluate",
    "mce",
    "reliability",
    "tace",
]
