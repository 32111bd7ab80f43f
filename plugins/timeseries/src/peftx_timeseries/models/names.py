"""Which free names are hosts: folders, and names of the hub. Torch-free."""

from __future__ import annotations

from pathlib import Path

from peftx.errors import ModelError

__all__ = ["known"]

_OPTIONS = "peftx_timeseries.config.models:HostConfig"
_BARE = ("gpt2", "distilgpt2", "openai-gpt", "bert-", "distilbert-", "roberta-")


def known(name: str) -> str | bool:
    """Options of a model that is a folder with a config.json, or has the form of a hub's name.

    Raises:
        ModelError: a folder without a config.json.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {name} has no config.json: give one that transformers wrote")
        return _OPTIONS
    return _OPTIONS if name.count("/") == 1 or name.startswith(_BARE) else False
