"""Where workers run: on this machine, or on a Ray cluster."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.config import StudyConfig
    from hpo.search.database import Database
    from hpo.search.processes import Launch


class RayCommand(TyperCommand):
    """A command whose `--ray` may stand without an address, which Typer does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the address that is meant where none stands."""
        if "--ray" in args:
            after = args.index("--ray") + 1
            if after == len(args) or args[after].startswith("-"):
                args = [*args[:after], "local", *args[after:]]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Request:
    """What the command line says about where workers run."""

    ray: str | None
    cpus: float | None
    gpus: float | None
    workers: int | None

    def check(self) -> None:
        """Refuse what belongs to Ray without it.

        Raises:
            UsageError: a worker's share is given without `--ray`.
        """
        given = {"--cpus-per-worker": self.cpus, "--gpus-per-worker": self.gpus}
        for option, value in given.items():
            if self.ray is None and value is not None:
                raise UsageError(f"{option}: goes only with --ray")


@dataclass(frozen=True)
class Placement:
    """Where workers run."""

    launch: "Launch"
    workers: int
    checkpoints: Path | None


@contextlib.contextmanager
def placed(
    request: Request, database: "Database", configs: Sequence["StudyConfig"], checkpoints: Path | None
) -> Iterator[Placement]:
    """What the request comes to; with `--ray` within a job on the cluster.

    Raises:
        UsageError: Ray is not installed, its token missing, or the database a file although there are several
            nodes.
    """
    if request.ray is None:
        from hpo.search.processes import LocalWorkers

        yield Placement(LocalWorkers, request.workers or max(1, (os.cpu_count() or 1) // 2), checkpoints)
        return
    from hpo.search.launch import checkpoints_of
    from hpo.search.ray_cluster import Place
    from hpo.search.ray_workers import on_ray

    place = Place(1.0 if request.cpus is None else request.cpus, request.gpus or 0.0)
    # Workers elsewhere have another current folder.
    shared = (checkpoints or checkpoints_of(database)).resolve()
    with on_ray(request.ray, place, configs, database.sqlite) as job:
        yield Placement(job.workers, request.workers or job.capacity, shared)
