"""What runs on a node of a Ray cluster: an actor that starts one worker process and tells how it does.

It imports little: the worker process is the one that needs torch. So an actor takes a place and 60 MB, what
trains can crash without it, and when the actor or the launcher dies, the worker process notices that and
hands its trials back (`stopping`).
"""

import os
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpo.search.processes import End, WorkerProcess, environment_of, stop
from hpo.usercode import SHIPPED

CODE = "code"
"""Folder in the job's package with the user's own files; see `shipment`."""


class Report(NamedTuple):
    """What an actor tells about itself and its worker process."""

    incarnation: str
    """Ray starts a lost actor again, without a worker: that has another one."""
    host: str
    node: str
    """Ray's id of the node."""
    authenticated: bool
    """Whether the node was started with token authentication."""
    started: bool
    end: End | None
    lines: list[str]


class WorkerActor:
    """One worker process on a node; made an actor by `RayWorkers`."""

    def __init__(self, program: Sequence[str]) -> None:
        """`program`: arguments of Python; no secret, for Ray keeps what an actor is made with."""
        import ray

        self.command = [sys.executable, *program]
        self.incarnation = uuid.uuid4().hex
        self.node = ray.get_runtime_context().get_node_id()
        self.package = Path(__file__).parents[2]
        self.extra = {SHIPPED: str(self.package / CODE)}
        if not ray.get_gpu_ids():  # some versions of Ray leave all of them visible then
            self.extra["CUDA_VISIBLE_DEVICES"] = ""
        self.process: WorkerProcess | None = None

    def start(self, url: str) -> Report:
        """Start a worker process (again) on the database at `url`, unless one is at work."""
        if self.process is None or self.process.end() is not None:
            # Nodes that share a machine unpack the package again, each over the one that others stand in.
            os.chdir(self.package)
            self.process = WorkerProcess(self.command, environment_of(url) | self.extra)
        return self.look()

    def look(self) -> Report:
        """How it stands."""
        return Report(
            incarnation=self.incarnation,
            host=socket.gethostname(),
            node=self.node,
            authenticated=os.environ.get("RAY_AUTH_MODE") == "token",  # as the node's own
            started=self.process is not None,
            end=self.process.end() if self.process else None,
            lines=self.process.drain() if self.process else [],
        )

    def stop(self, grace: float) -> Report:
        """Tell the worker process to hand its trials back, and see it end."""
        stop([self.process] if self.process else [], grace)
        return self.look()
