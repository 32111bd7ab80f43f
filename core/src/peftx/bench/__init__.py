"""Benchmarks: a suite as a grid of runs, carried out by several processes, stopped and continued."""

from __future__ import annotations
