"""Pretrained weights from the hub: from its cache, else by download, else an error within seconds.

The hub's client retries for a long time on a machine without network; one short question comes first.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache

from peftx.errors import ModelError, NetworkError

__all__ = ["FILE", "weights_file"]

FILE = "model.safetensors"
TIMEOUT = 5.0  # seconds for the one question whether the hub answers


def weights_file(repository: str, name: str, *, offline: bool = False) -> Path:
    """Return the local path of the weights of `name`, downloading them when allowed.

    Raises:
        NetworkError: not in the cache, and the network is off or out of reach.
        ModelError: the hub answers, but does not give the file.
    """
    cached = try_to_load_from_cache(repository, FILE)
    if isinstance(cached, str):
        return Path(cached)
    by_hand = (
        f"give the file with --model.weights FILE ({FILE} of {repository}), put it into the hub's cache "
        f"({constants.HF_HUB_CACHE}), or start at random with --model.pretrained false"
    )
    if offline or constants.HF_HUB_OFFLINE:
        raise NetworkError(
            f"the weights of {name} are not on this machine, and the network is off: {by_hand}"
        )
    reason = _unreachable(hf_hub_url(repository, FILE))
    if reason:
        raise NetworkError(
            f"the weights of {name} are not on this machine, and the hub is out of reach ({reason}): {by_hand}"
        )
    try:
        return Path(hf_hub_download(repository, FILE))
    except Exception as error:  # the client raises its own, requests' and the system's errors
        raise ModelError(
            f"cannot download the weights of {name}: {str(error).splitlines()[0][:160]}; {by_hand}"
        ) from error


def _unreachable(url: str) -> str:
    """Ask for the head of the file once; return why there was no answer, or an empty string."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers: let the client, which knows about tokens, speak
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))[:120]
