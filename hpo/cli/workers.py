"""The command that trains."""

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import (
    DEFAULT_STORAGE,
    Cpus,
    Gpus,
    Lanes,
    Lease,
    Ray,
    Shared,
    Storage,
    Threads,
    lanes_of,
    name_of,
    opened,
)
from hpo.cli.output import make_console, say
from hpo.cli.placing import Request, placed
from hpo.errors import UsageError

if TYPE_CHECKING:
    import threading

    from hpo.search.database import Database
    from hpo.search.running import WorkerOptions

REFRESH = 0.5
"""Seconds between looks at workers on Ray."""


def worker(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="By default any open study.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    lanes: Lanes = "auto",
    workers: Annotated[
        int,
        typer.Option(min=1, help="Workers that share the trials in flight; with --ray: how many to start."),
    ] = 1,
    threads: Threads = 1,
    lease: Lease = 30.0,
    checkpoints: Shared = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait for more studies, and finalize each that is searched.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --stay: where results folders go.")] = Path("results"),
    ray: Ray = None,
    cpus_per_worker: Cpus = None,
    gpus_per_worker: Gpus = None,
) -> None:
    """Claim and train trials until every trial has finished. Start as many as you like, anywhere."""
    _check_stay(stay, study, ray)
    name, lane_count = name_of(study) if study else None, lanes_of(lanes)
    request = Request(ray, cpus_per_worker, gpus_per_worker, workers)
    request.check()

    import torch

    from hpo.search.processes import LAUNCHER
    from hpo.search.running import WorkerOptions
    from hpo.search.stopping import stop_on_signals

    make_console()
    torch.set_num_threads(threads)
    database = opened(storage, create=False, patient=stay or LAUNCHER in os.environ)
    options = WorkerOptions(lanes=lane_count, workers=workers, lease=lease)
    if ray is not None:
        _on_ray(request, database, name, options, threads, checkpoints)
        return
    with stop_on_signals() as stop:
        if stay:
            from hpo.results.service import Service

            Service(database, options, out, checkpoints, partial(say, make_console())).run(stop)
            return
        _here(database, name, options, stop, checkpoints)


def _check_stay(stay: bool, study: str | None, ray: str | None) -> None:
    if stay and study:
        raise UsageError(f"worker {study} --stay: a worker that stays serves every study; leave out {study}")
    if stay and ray is not None:
        raise UsageError("worker --stay: goes without --ray, whose job ends with its studies")


def _here(
    database: "Database",
    name: str | None,
    options: "WorkerOptions",
    stop: "threading.Event",
    checkpoints: Path | None,
) -> None:
    """Work in this process."""
    from hpo.search.launch import open_studies, serve

    served = 0
    for record in open_studies(database, name, stop):
        try:
            serve(database, record, options, stop, checkpoints)
        except UsageError as error:  # of this study: its data are not here, say
            if name is not None:
                raise
            print(f"hpo: {record.name}: {error}", file=sys.stderr)
        else:
            served += 1
    if not served:
        say(make_console(), f"{database}: no study with trials to claim")
    if stop.is_set():
        raise KeyboardInterrupt


def _on_ray(
    request: Request,
    database: "Database",
    name: str | None,
    options: "WorkerOptions",
    threads: int,
    checkpoints: Path | None,
) -> None:
    """Start workers on a Ray cluster, and see them through."""
    from hpo.search.launch import worker_command
    from hpo.search.leases import Leases, Watch
    from hpo.search.status import CONFIG
    from hpo.search.studies import Studies
    from hpo.search.submission import config_of

    studies, console = Studies(database), make_console()
    records = [studies.study(name)] if name else [one for one in studies.studies() if CONFIG in one.attrs]

    def progress() -> tuple[int, int]:
        each = [studies.progress(record.study_id) for record in records]
        return sum(finished for finished, _ in each), sum(epochs for _, epochs in each)

    leases = Watch(Leases(database), options.retries)
    url = database.url.render_as_string(hide_password=False)
    with placed(request, database, [config_of(record) for record in records], checkpoints) as place:
        command = worker_command(name, options, threads, place.checkpoints)
        with place.launch(command, url, place.workers, lambda line: say(console, line), progress) as started:
            while started.poll():
                leases.look()
                time.sleep(REFRESH)
