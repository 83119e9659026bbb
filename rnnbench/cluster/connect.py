"""A connection to a cluster: the address of its scheduler, workers of our own on this machine, or a client as given."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib.metadata import version

import dask
from distributed import Client, LocalCluster

from rnnbench.cluster.roster import RESOURCE, ClusterError

CONNECT = 15.0  # seconds
_FINE = {  # of workers of our own: nothing that samples a worker while it measures
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
}


@contextlib.contextmanager
def connected(scheduler: str | None = None, local: int | None = None, client: Client | None = None) -> Iterator[Client]:
    """One of the three as a client; what was made for it is closed again. Raises ClusterError."""
    if client is not None:
        if getattr(client, "asynchronous", False):
            raise ClusterError("the client is asynchronous; give one that was made without asynchronous=True")
        yield client
    elif local is not None:
        with (
            dask.config.set(_FINE),
            LocalCluster(
                n_workers=local, threads_per_worker=1, resources={RESOURCE: 1}, dashboard_address=":0",
                silence_logs="ERROR",
            ) as cluster,
            Client(cluster, set_as_default=False) as made,
        ):  # fmt: skip
            yield made
    else:
        assert scheduler is not None
        if not re.fullmatch(r"(\w+://)?[^/]+:\d+/?|inproc://.+", scheduler):  # Dask waits half a minute for others
            raise ClusterError(f"{scheduler!r} is no address of a scheduler; give what it prints, tcp://10.0.0.1:8786")
        try:
            made = Client(scheduler, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(
                f"no scheduler answers at {scheduler} within {CONNECT:.0f} s ({error or type(error).__name__}); start "
                f"one with `dask scheduler`, of distributed {version('distributed')} as here, and give the address "
                "that it prints"
            ) from error
        with made:
            yield made
