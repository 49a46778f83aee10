"""The command that trains."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.arguments import (
    DEFAULT_STORAGE,
    Lanes,
    Lease,
    Shared,
    Storage,
    Threads,
    lanes_of,
    name_of,
    opened,
)
from hpo.cli.output import make_console, say
from hpo.errors import UsageError


def worker(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="By default any open study.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    lanes: Lanes = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Workers that share the trials in flight.")] = 1,
    threads: Threads = 1,
    lease: Lease = 30.0,
    checkpoints: Shared = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait for more studies, and finalize each that is searched.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --stay: where results folders go.")] = Path("results"),
) -> None:
    """Claim and train trials until every trial has finished. Start as many as you like, anywhere."""
    if stay and study:
        raise UsageError(f"worker {study} --stay: a worker that stays serves every study; leave out {study}")
    name, lane_count = name_of(study) if study else None, lanes_of(lanes)

    import torch

    from hpo.search.launch import LAUNCHER, open_studies, serve, stop_on_signals
    from hpo.search.running import WorkerOptions

    make_console()
    torch.set_num_threads(threads)
    database = opened(storage, create=False, patient=stay or LAUNCHER in os.environ)
    options = WorkerOptions(lanes=lane_count, workers=workers, lease=lease)
    served = 0
    with stop_on_signals() as stop:
        if stay:
            from hpo.results.service import Service

            Service(database, options, out, checkpoints, partial(say, make_console())).run(stop)
            return
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
        if stop.is_set() and LAUNCHER in os.environ:  # which tells the user itself
            raise typer.Exit(130)
        if stop.is_set():
            raise KeyboardInterrupt
