"""Three adapter methods as a package of their own; peftx knows nothing of them."""

from __future__ import annotations

__version__ = "0.1.0"
