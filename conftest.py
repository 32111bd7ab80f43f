"""Settings of every test session, whichever distribution it tests."""

from __future__ import annotations

import os

# read when torch and numpy load: threads that spin while they wait slow down whatever else the machine is doing, the
# tests included
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
