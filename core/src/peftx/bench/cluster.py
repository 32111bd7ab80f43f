"""Cells on a Ray cluster: the same runs, carried out by remote functions. The only file that knows Ray.

The cluster of RAY_ADDRESS, or else one on this machine for the time of the bench. All its nodes need peftx, the packs,
and a file system they share with this machine, since runs are written where they are asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from peftx.bench.executor import Event, cores, thread_variables
from peftx.bench.job import INTERRUPTED
from peftx.errors import ConfigError, PeftxError, RunError
from peftx.plugins.targets import one_line

__all__ = ["Cluster"]

#: Seconds to wait for the head of a cluster to answer.
TIMEOUT = 10.0


class Cluster:
    """At most `jobs` remote runs at once, each on `threads` cores (default: one, or the cores divided among the jobs).

    Raises:
        ConfigError: Ray is not installed, or its cluster does not answer.
    """

    def __init__(
        self,
        jobs: int | None,
        *,
        threads: int | None = None,
        device: str = "auto",
        disabled: tuple[str, ...] = (),
    ) -> None:
        # it would send figures about its use to its makers
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "--executor ray needs Ray, which is not installed: `pip install ray`, or leave --executor out"
            ) from None
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            _connect(ray, (jobs or 1) * (threads or 1))
        total = ray.cluster_resources()
        held = int(total.get("CPU", 1))
        self.jobs = jobs or max(1, held // (threads or 1))
        self.threads = threads or max(1, held // self.jobs if jobs else 1)
        self._settings = json.dumps({"disabled": list(disabled), "folder": os.getcwd()})
        passed = {name: value for name, value in os.environ.items() if name.startswith("PEFTX_")}
        self._options: dict[str, Any] = {
            "num_cpus": self.threads,
            # a cell that ends badly is a result of the bench, and another process may hold it by then
            "max_retries": 0,
            "runtime_env": {
                "env_vars": {
                    **passed,
                    **thread_variables(self.threads),
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                }
            },
        }
        if total.get("GPU") and device != "cpu":
            self._options["num_gpus"] = 1
        self._function = ray.remote(_remote)
        self._under: dict[Any, str] = {}
        self._stopping = False

    @property
    def free(self) -> int:
        """How many more cells can be taken now."""
        return 0 if self._stopping else self.jobs - len(self._under)

    def submit(self, job: Mapping[str, Any]) -> None:
        """Start a cell.

        Raises:
            RunError: the cluster takes none.
        """
        with _told():
            reference = self._function.options(**self._options).remote(json.dumps(job), self._settings)
        self._under[reference] = job["cell"]

    def poll(self, timeout: float) -> list[Event]:
        """What became of cells.

        Raises:
            RunError: the cluster is gone.
        """
        if not self._under:
            time.sleep(timeout)
            return []
        with _told():
            done, _ = self._ray.wait(list(self._under), num_returns=1, timeout=timeout)
        return [self._event(reference) for reference in done]

    def stop(self) -> None:
        """Interrupt the runs, which then write their checkpoints; those that wait for a place are taken back."""
        self._stopping = True
        for reference in self._under:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """End what still runs, and the cluster if it was made for this bench."""
        for reference in self._under:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._under = {}
        if self._own:
            self._ray.shutdown()

    def _event(self, reference: Any) -> Event:
        cell = self._under.pop(reference)
        try:
            return Event("reply", cell, json.loads(self._ray.get(reference)))
        except self._ray.exceptions.TaskCancelledError:
            return Event("reply", cell, {"cell": cell, "state": INTERRUPTED, "cause": ""})
        except self._ray.exceptions.WorkerCrashedError:
            return Event(
                "died", cell, cause="the process ended before its run did, perhaps for want of memory"
            )
        except self._ray.exceptions.RayError as error:
            return Event("died", cell, cause=f"the cluster lost the process ({one_line(error)})")


def _remote(job: str, settings: str) -> str:
    """What a process of the cluster does with one cell."""
    from peftx.bench.job import carry_out, warm_up
    from peftx.bench.states import FAILED
    from peftx.plugins.manager import get_registry

    told, given = json.loads(job), json.loads(settings)
    try:
        os.chdir(given["folder"])
        registry = get_registry(tuple(given["disabled"]))
    except OSError as error:
        cause = (
            f"{given['folder']} is not on every node ({error.strerror}): a cluster needs a shared file system"
        )
        return json.dumps({"cell": told["cell"], "state": FAILED, "cause": cause, "trace": ""})
    except PeftxError as error:
        return json.dumps({"cell": told["cell"], "state": FAILED, "cause": str(error), "trace": ""})
    warm_up()
    return json.dumps(carry_out(told, registry))


def _connect(ray: Any, needed: int) -> None:
    """Join the cluster of RAY_ADDRESS, or start one here with room for `needed` cores' work."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    _refuse_silent(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"num_cpus": max(cores(), needed), "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except Exception as error:
        what = (
            "Ray did not start" if address == "local" else f"no Ray cluster answers at RAY_ADDRESS={address}"
        )
        raise ConfigError(
            f"{what} ({one_line(error)}); `ray status` says more, or leave --executor out"
        ) from None


def _refuse_silent(address: str) -> None:
    """Knock at the cluster's door first: Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}): start it, name another, or "
            "leave --executor out"
        ) from None


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except PeftxError:
        raise
    except Exception as error:
        raise RunError(
            f"the Ray cluster is gone ({one_line(error)}); the same command goes on when it is back"
        ) from error
