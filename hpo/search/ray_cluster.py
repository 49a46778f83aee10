"""A connection to a Ray cluster: authenticated by its token, on loopback where the cluster is our own."""

import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import HpoError, UsageError

LOCAL = "local"
"""The address of a cluster of our own, on this machine and for this run."""
OBJECTS = 100 * 2**20
"""Bytes for Ray's store of objects, in a cluster of our own: workers exchange none."""
TOKEN_HELP = (
    "The token must be the cluster's: in RAY_AUTH_TOKEN, in a file named by RAY_AUTH_TOKEN_PATH, or in "
    "~/.ray/auth_token, where `ray get-auth-token --generate` writes a new one"
)


@dataclass(frozen=True)
class Node:
    """A node's resources in all."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Place:
    """What one worker takes of a node."""

    cpus: float = 1.0
    gpus: float = 0.0

    def fits(self, nodes: Sequence[Node]) -> int:
        """How many workers have a place on these nodes."""
        return sum(min(_times(node.cpus, self.cpus), _times(node.gpus, self.gpus)) for node in nodes)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def _times(there: float, share: float) -> int:
    # Ray counts in ten-thousandths.
    return round(there * 10_000) // round(share * 10_000) if share else sys.maxsize


def parse_address(address: str) -> str:
    """The address that Ray is given; `local` stays, unless RAY_ADDRESS names another.

    Raises:
        UsageError: it is none.
    """
    address = os.environ.get("RAY_ADDRESS", LOCAL) if address == LOCAL else address
    if address in {LOCAL, "auto"}:
        return address
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise UsageError(
            f"--ray: {address!r} is no address of a cluster; valid: host:port, auto (the one that runs on "
            "this machine), local (a new one, on this machine alone); a job is started on one of its nodes"
        )
    return address


@contextlib.contextmanager
def connected(address: str, package: Path) -> Iterator[list[Node]]:
    """Within a job on the cluster at `address`; answers its nodes.

    Args:
        address: As `parse_address` answers it.
        package: Folder with the code that travels with the job.

    Raises:
        UsageError: Ray is not installed, no cluster is at `address`, or its token is missing or another one.
        HpoError: Ray itself fails.
    """
    _set_up(address)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UsageError("--ray needs Ray: pip install 'hpo[ray]'") from error
    try:
        _init(address, package)
        resources = _resources()
        yield [Node(there.get("CPU", 0.0), there.get("GPU", 0.0)) for there in resources]
    finally:
        ray.shutdown()


def _resources() -> list[dict[str, float]]:
    """Of each node that is there."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _init(address: str, package: Path) -> None:
    import ray

    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECTS}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address,
            runtime_env={"working_dir": str(package)},
            log_to_driver=False,  # what workers print comes by `Report`
            logging_level=logging.ERROR,
            **(own if address == LOCAL else {}),
        )
    except ray.exceptions.AuthenticationError as error:
        raise UsageError(f"--ray: {address}: {_first_line(error)}. {TOKEN_HELP}") from error
    except ConnectionError as error:  # Ray does not tell these two apart
        raise UsageError(
            f"--ray: {address}: no cluster answers there, or not to this token. {TOKEN_HELP}"
        ) from error
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise HpoError(f"--ray: {address}: {_first_line(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's would leave without handing trials back


def _set_up(address: str) -> None:
    """What Ray reads from the environment when it is imported."""
    if os.environ.setdefault("RAY_AUTH_MODE", "token") != "token":
        mode = os.environ["RAY_AUTH_MODE"]
        raise UsageError(
            f"--ray: RAY_AUTH_MODE is {mode!r}: must be token, for who reaches a cluster owns it"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")  # a second each, and a line of Ray's on stderr
    if address == LOCAL:
        # By this, and nothing else, Ray's servers listen on loopback alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray would write one to the home folder


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
