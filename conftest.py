"""Settings of every test session, whichever distribution it tests."""

from __future__ import annotations

import os

# read when torch loads: waiting threads that spin slow down whatever else the machine is doing, the tests included
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
