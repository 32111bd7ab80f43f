"""The time-series pack of peftx: forecasting with adapters on frozen language models, beside honest baselines.

Import what you need from its rooms; the package itself imports nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"
