"""Writing a plugin's first files: a package that can be published, and further methods in one that exists."""

from __future__ import annotations

from peftx.plugins.scaffold.method import NewMethod, add_method
from peftx.plugins.scaffold.package import LICENCES, new_plugin

__all__ = ["LICENCES", "NewMethod", "add_method", "new_plugin"]
