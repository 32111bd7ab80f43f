"""The numbers and names both sides of the plugin contract agree on.

`PLUGIN_API` grows by one when a change to the hooks or descriptors can break a plugin. A plugin states the
number it was written for as a module constant `PEFTX_API`; pip pins guard an installation, this number also
guards `--no-deps`, editable and vendored ones, and lets the message say what to do.
"""

from __future__ import annotations

PLUGIN_API = 1
ENTRY_POINT_GROUP = "peftx.plugins"
PROJECT = "peftx"

#: An import slower than this (seconds) is reported: it delays every command, `--help` included.
SLOW_SECONDS = 1.0

ENV_DISABLE = "PEFTX_DISABLE_PLUGINS"
ENV_ONLY = "PEFTX_PLUGINS"
