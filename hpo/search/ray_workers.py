"""Workers as actors of a Ray cluster, behind the same launcher as those of this machine."""

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy.engine import make_url

from hpo.config import StudyConfig
from hpo.errors import HpoError, UsageError
from hpo.search.processes import GRACE, Crashes, End, Progress, Show, Workers
from hpo.search.ray_actor import Report, WorkerActor
from hpo.search.ray_cluster import Node, Place, connected, parse_address
from hpo.search.shipment import pack

LOST = End(1, "was lost, with its node or with Ray's process there")


class RayWorker:
    """One actor, wherever Ray places it, and the worker process that it is told to start there.

    Each step is a call that is not waited for. The database's URL goes with such a call alone, straight to
    the actor: what an actor is made with, and its environment, Ray keeps and shows.
    """

    def __init__(self, actor: Any, url: str, check: Callable[[Report], None]) -> None:
        """`check`: told where the actor is; raises if no worker may be started there."""
        self.actor = actor
        self.url = url
        self.check = check
        self.crashes = Crashes()
        self.lines: deque[str] = deque(maxlen=20)
        self.report: Report | None = None
        """The last."""
        self.placed = False
        """Whether it is on a node now, as far as is known."""
        self._lost = False
        self._unread: list[str] = []
        self._call = actor.look.remote()
        """What was asked last, None where there is nothing more to ask."""

    @property
    def at_work(self) -> bool:
        """Whether it trains, or is about to; not without a place."""
        return self.placed and self.report is not None and self.report.end is None

    def end(self) -> End | None:
        """How it ended; None while it is at work, or waits for a place."""
        import ray

        if self._call is not None and ray.wait([self._call], timeout=0)[0]:
            try:
                self._take(ray.get(self._call))
            except ray.exceptions.ActorUnavailableError:  # Ray starts it again where there is a place
                self.placed = False
                self._call = self.actor.look.remote()
            except ray.exceptions.ActorDiedError as error:
                raise HpoError(f"--ray: a worker's actor cannot be started: {error}") from error
        if self._lost:
            return LOST
        return self.report.end if self.report else None

    def _take(self, report: Report) -> None:
        """Take an answer, and make the next call."""
        self.add(report.lines, report.host)
        before, self.report, self.placed = self.report, report, True
        if before is None or before.incarnation != report.incarnation:
            self.check(report)
            self._lost = self._lost or before is not None
        self._call = None
        if report.end is None and not self._lost:
            self._call = self.actor.look.remote() if report.started else self.actor.start.remote(self.url)

    def add(self, lines: Iterable[str], host: str) -> None:
        """Keep what it printed until `drain`."""
        self._unread += [f"{host}: {line}" for line in lines]

    def drain(self) -> list[str]:
        """What it printed since the last call; all of it once it has ended."""
        lines, self._unread = self._unread, []
        self.lines.extend(lines)
        return lines

    def restart(self) -> None:
        """Start it again, where its actor is now."""
        self._lost = False
        if self.report is not None:
            self.report = self.report._replace(end=None)
        self._call = self.actor.start.remote(self.url)


@dataclass(frozen=True)
class RayJob:
    """A job on a cluster."""

    nodes: Sequence[Node]
    place: Place
    sqlite: bool
    """Whether the database is a file, on the node where the job was started."""

    @property
    def capacity(self) -> int:
        """How many workers have a place at once."""
        return self.place.fits(self.nodes)

    def workers(
        self, command: Sequence[str], url: str, count: int, show: Show, progress: Progress
    ) -> "RayWorkers":
        """As `Launch` says."""
        return RayWorkers(self, ["-m", "hpo.cli", *command], url, count, show, progress)

    def check(self, report: Report) -> None:
        """Refuse to start a worker where a report comes from.

        Raises:
            UsageError: the node has no token authentication, or not the SQLite file.
        """
        import ray

        if not report.authenticated:
            raise UsageError(
                f"--ray: node {report.host} was started without token authentication: whoever reaches it can "
                "run code there; start all nodes with RAY_AUTH_MODE=token and one token"
            )
        if self.sqlite and report.node != ray.get_runtime_context().get_node_id():
            raise UsageError(SQLITE.format(f"node {report.host} has joined"))


SQLITE = (
    "--ray: {}, and SQLite is a file of one machine: several nodes need Postgres "
    "(HPO_STORAGE=postgresql://user@host/database)"
)


@contextlib.contextmanager
def on_ray(address: str, place: Place, configs: Iterable[StudyConfig], sqlite: bool) -> Iterator[RayJob]:
    """Within a job on the cluster at `address`, with hpo and the user's own files of these studies.

    Raises:
        UsageError: address or token are wrong, Ray is not installed, no worker has a place, or `sqlite`
            although there are several nodes.
        HpoError: Ray itself fails.
    """
    address = parse_address(address)
    with tempfile.TemporaryDirectory(prefix="hpo-ray-") as package:
        pack(configs, Path(package))
        with connected(address, Path(package)) as nodes:
            job = RayJob(nodes, place, sqlite)
            if sqlite and len(nodes) > 1:
                raise UsageError(SQLITE.format(f"the cluster has {len(nodes)} nodes"))
            if not job.capacity:
                raise UsageError(
                    f"--ray: a worker takes {place}, and no node has that; the largest have "
                    f"{max(node.cpus for node in nodes):g} CPUs, {max(node.gpus for node in nodes):g} GPUs"
                )
            yield job


class RayWorkers(Workers):
    """Workers on the nodes of a job's cluster; made by `RayJob.workers`."""

    def __init__(
        self, job: RayJob, program: Sequence[str], url: str, count: int, show: Show, progress: Progress
    ) -> None:
        """`program`: what Python runs on the node; for the rest see `Launch`."""
        super().__init__(show, progress)
        self.job = job
        self.program = program
        self.url = _absolute(url)
        self.count = count
        self.workers: list[RayWorker] = []

    @property
    def watched(self) -> Sequence[RayWorker]:
        """Each of them."""
        return self.workers

    def __enter__(self) -> Self:
        import ray

        place, capacity = self.job.place, self.job.capacity
        if capacity < self.count:
            self.show(f"{capacity} of {self.count} workers have a place now; each takes {place}")
        make = ray.remote(WorkerActor).options(
            num_cpus=place.cpus, num_gpus=place.gpus, max_restarts=-1, scheduling_strategy="SPREAD"
        )
        actors = [make.remote(self.program) for _ in range(self.count)]
        self.workers = [RayWorker(actor, self.url, self.job.check) for actor in actors]
        return self

    def at_work(self) -> bool:
        """Whether any is at work. One ends well when nothing is left to do: then none is waited for that has
        no place."""
        ended = any(worker.report and worker.report.end for worker in self.workers)
        return any(worker.at_work for worker in self.workers) or not ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        calls = {worker.actor.stop.remote(GRACE): worker for worker in self.workers if worker.placed}
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster is gone, and all of them with it
            done = ray.wait(list(calls), num_returns=len(calls), timeout=GRACE + 2)[0] if calls else []
            for call in done:
                with contextlib.suppress(ray.exceptions.RayActorError):  # its node is gone
                    report: Report = ray.get(call)
                    calls[call].add(report.lines, report.host)
            for worker in self.workers:
                ray.kill(worker.actor)
        for worker in self.workers:
            self.drain(worker)


def _absolute(url: str) -> str:
    """A URL that means the same in another folder."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(database=str(Path(parsed.database or "").resolve()))
    return parsed.render_as_string(hide_password=False)
