"""A study as it runs, in the terminal: a live view, or plain lines where the output is no terminal."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hpo import terminal
from hpo.config import StudyConfig
from hpo.errors import HpoError
from hpo.search.database import Database
from hpo.search.records import StudyRecord
from hpo.search.status import Status, StatusReader
from hpo.search.studies import Studies

if TYPE_CHECKING:  # it imports torch, which costs seconds
    from hpo.search.processes import Launch
    from hpo.search.running import WorkerOptions

REFRESH = 0.5
"""Seconds between readings."""
PLAIN = 10.0
"""Seconds between plain lines."""


def watch(database: Database, study: StudyRecord, config: StudyConfig, console: Console) -> None:
    """Show a study until it is searched."""
    with _view(database, study, config, console) as look:
        while look().state not in {"searched", "finished"}:
            time.sleep(REFRESH)


def search(
    database: Database,
    study: StudyRecord,
    config: StudyConfig,
    console: Console,
    options: "WorkerOptions",
    command: Sequence[str],
    launch: "Launch",
) -> None:
    """Search a study with workers that `launch` makes, started by `command`, and show it.

    Raises:
        HpoError: a worker crashed too often, or the study was stopped meanwhile.
    """
    from hpo.search.launch import watch_leases

    url = database.url.render_as_string(hide_password=False)
    leases = watch_leases(database, study, options)
    progress = partial(Studies(database).progress, study.study_id)

    def show(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with (
        launch(command, url, options.workers, show, progress) as workers,
        _view(database, study, config, console) as look,
    ):
        while workers.poll():
            leases.look()
            look()
            time.sleep(REFRESH)
        last = look()
    _refuse_stopped(last)
    if last.waiting and config.hours is None:
        raise HpoError(f"study {study.name!r} was given more trials meanwhile: run it again to search them")


def to_search(database: Database, study: StudyRecord) -> bool:
    """Whether a study has trials left.

    Raises:
        HpoError: it was stopped.
    """
    before = StatusReader(database, study).read()
    if before.state in {"searched", "finished"}:
        return False
    _refuse_stopped(before)
    return True


def _refuse_stopped(status: Status) -> None:
    if status.state == "stopped":
        raise HpoError(f"study {status.study!r} is stopped; `hpo resume {status.study}` lets it go on")


@contextlib.contextmanager
def _view(
    database: Database, study: StudyRecord, config: StudyConfig, console: Console
) -> Iterator[Callable[[], Status]]:
    reader = StatusReader(database, study)
    if not console.is_terminal:
        yield _plain(reader, console)
        return
    view = Live(console=console, auto_refresh=False, transient=True)
    line = ""

    def look() -> Status:
        nonlocal line
        status = reader.read()
        view.update(terminal.LiveView(status, config), refresh=True)
        line = terminal.status_line(status)
        return status

    try:
        with view:
            yield look
    finally:  # of the view, which is gone now
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _plain(reader: StatusReader, console: Console) -> Callable[[], Status]:
    shown, shown_at = None, -math.inf

    def look() -> Status:
        nonlocal shown, shown_at
        status = reader.read()
        news = (status.finished, status.total, status.running, status.best)
        if news != shown and (time.monotonic() - shown_at >= PLAIN or status.finished == status.total):
            console.print(terminal.status_line(status), markup=False, highlight=False, soft_wrap=True)
            shown, shown_at = news, time.monotonic()
        return status

    return look


@contextlib.contextmanager
def final_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for what `finalize` tells; plain lines where the output is no terminal."""
    if not console.is_terminal:
        told: set[str] = set()

        def line(doing: str, _done: int, _total: int) -> None:
            if doing not in told:
                told.add(doing)
                console.print(doing, markup=False, highlight=False)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {}

        def bar(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(doing, total=total)
            progress.update(tasks[doing], completed=done, total=total)

        yield bar
