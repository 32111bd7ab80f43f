"""The conformance kit: the laws every method, row, data set, task, model and plugin keeps, for whoever writes one.

    class TestScale(peftx.testing.MethodLaws):          one test for each law and small model
        method = "mine.scale"

    peftx.testing.check("mine.scale", fast=True)        the same without pytest, as a report
    peftx check mine.scale                              the same from a shell

pytest is imported when tests are collected, never by `check`.
"""

from __future__ import annotations

from peftx.testing.cases import CASES, FAST, Case, case_named
from peftx.testing.checking import check
from peftx.testing.lawbook import Law, LawError, NotApplicable, demand, law, laws_of
from peftx.testing.pytesting import (
    DatasetLaws,
    MethodLaws,
    ModelLaws,
    PluginLaws,
    RowLaws,
    TaskLaws,
    parametrize_method_laws,
    settle,
)
from peftx.testing.report import Outcome, Report
from peftx.testing.trial import Subject, Trial, perturb

__all__ = [
    "CASES",
    "FAST",
    "Case",
    "DatasetLaws",
    "Law",
    "LawError",
    "MethodLaws",
    "ModelLaws",
    "NotApplicable",
    "Outcome",
    "PluginLaws",
    "Report",
    "RowLaws",
    "Subject",
    "TaskLaws",
    "Trial",
    "case_named",
    "check",
    "demand",
    "law",
    "laws_of",
    "parametrize_method_laws",
    "perturb",
    "settle",
]
