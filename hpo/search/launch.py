"""Launching workers: processes of this machine, watched and restarted; and a worker process's own life."""

import contextlib
import hashlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

import structlog
from optuna.trial import TrialState

from hpo.data.prepare import prepare
from hpo.errors import HpoError, UsageError
from hpo.search.database import Database
from hpo.search.leases import Leases, Watch
from hpo.search.records import StudyRecord
from hpo.search.running import WorkerOptions
from hpo.search.status import CONFIG, RESULT, STOPPED, time_is_up
from hpo.search.studies import Studies
from hpo.search.submission import check_data, config_of
from hpo.search.trainer import Trainer
from hpo.search.worker import Worker
from hpo.training.checkpoint import Checkpoints
from hpo.training.memory import keep_freed_memory

log = structlog.get_logger()

RESTARTS = 6
"""Times in a row that a worker process is started again after a crash, the study having come on by nothing:
more than a trial that kills every worker can cause before it fails (`WorkerOptions.retries`, and once beside
others)."""
HOPELESS = 5 * RESTARTS
"""Times in a row that it is started again if no trial came to a new epoch meanwhile: ten trials then failed
because they kill every worker, and so will the others."""
GRACE = 10.0
"""Seconds that a stopped worker has for handing its trials back."""
LAUNCHER = "HPO_LAUNCHER_PID"


def serve(
    database: Database,
    study: StudyRecord,
    options: WorkerOptions,
    stop: threading.Event,
    checkpoints: Path | None = None,
    device: str = "auto",
) -> None:
    """Work on one study in this process until it is searched or `stop` is set.

    `checkpoints` is the folder that workers share for them; by default beside the SQLite file, or
    `checkpoints` in the current folder.

    Raises:
        UsageError: the data here are not those that the study was submitted with.
    """
    config = config_of(study)
    prepared = prepare(config)
    check_data(study, prepared.fingerprint)
    # Of this very configuration and data: another study of the same name has other weights.
    version = hashlib.sha256((config.digest() + prepared.fingerprint).encode()).hexdigest()[:12]
    folder = (checkpoints or _beside(database)) / f"{study.name}-{version}"
    keep_freed_memory()
    trials = 0 if options.lanes == 1 else config.trials / options.workers
    trainer = Trainer(config, prepared, device, trials)
    Worker(database, study, config, trainer, options, stop, Checkpoints(folder)).run()


def _beside(database: Database) -> Path:
    return Path(f"{database.url.database}.checkpoints") if database.sqlite else Path("checkpoints")


def open_studies(database: Database, name: str | None, stop: threading.Event) -> Iterator[StudyRecord]:
    """The study called `name`; without a name each study that has trials left, once.

    Raises:
        UsageError: there is no study of that name.
    """
    studies = Studies(database)
    if name is not None:
        yield studies.study(name)
        return
    served: set[int] = set()
    while not stop.is_set():
        left = [
            study for study in studies.studies() if CONFIG in study.attrs and study.study_id not in served
        ]
        unfinished = [study for study in left if _open(studies, study)]
        if not unfinished:
            return
        served.add(unfinished[0].study_id)
        yield unfinished[0]


def _open(studies: Studies, study: StudyRecord) -> bool:
    if study.attrs.get(STOPPED) or RESULT in study.attrs:
        return False
    counts = studies.counts(study.study_id)
    to_claim = 0 if time_is_up(study.attrs[CONFIG].get("hours"), study.attrs) else counts[TrialState.WAITING]
    return to_claim + counts[TrialState.RUNNING] > 0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, and the end of the launcher that started this process."""
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    launcher = os.environ.get(LAUNCHER)
    if launcher is not None:
        threading.Thread(target=_follow, args=(int(launcher), stop), name="launcher", daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _follow(launcher: int, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        if os.getppid() != launcher:
            stop.set()
            # It read what this process prints: a write to its closed pipe would raise.
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
                os.dup2(nowhere.fileno(), sys.stderr.fileno())


class _Process:
    """One worker process, and those that took its place after crashes."""

    def __init__(self, start: Callable[[], subprocess.Popen[str]]) -> None:
        self.start = start
        self.crashes = self.fruitless = 0
        """In a row: while no trial finished, and while no epoch was recorded."""
        self.seen = (0, 0)
        """How far the study was at the last crash."""
        self.lines: deque[str] = deque(maxlen=20)
        """The last that it printed."""
        self.unread: queue.Queue[str] = queue.Queue()
        self.restart()

    def restart(self) -> None:
        """Start it (again)."""
        self.popen = self.start()
        self._reader = threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: TextIO) -> None:
        with stream:
            for line in stream:
                self.unread.put(line.rstrip())

    def drain(self) -> list[str]:
        """What it printed since the last call; all of it once the process has ended."""
        if self.popen.poll() is not None:
            self._reader.join(timeout=1.0)  # a child of its own may hold the pipe open
        lines = [self.unread.get() for _ in range(self.unread.qsize())]
        self.lines.extend(lines)
        return lines

    def count_crash(self, progress: tuple[int, int]) -> None:
        """Count a crash, after which `Studies.progress` was this."""
        epochs_before = self.seen[1]
        self.fruitless = 1 if progress[1] > epochs_before else self.fruitless + 1
        self.crashes = 1 if progress != self.seen else self.crashes + 1
        self.seen = progress

    def crashed(self) -> str | None:
        """How it ended, unless it is at work or ended well."""
        code = self.popen.poll()
        if not code:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class LocalWorkers:
    """Worker processes on this machine: a context manager that leaves none behind."""

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        count: int,
        show: Callable[[str], None],
        progress: Callable[[], tuple[int, int]],
    ) -> None:
        """
        Args:
            command: Arguments of `hpo` that start one worker; no secret may be among them.
            url: The database's, with its password: handed on in the environment.
            count: How many.
            show: Told each line that a worker prints.
            progress: Asked after a crash how many trials have finished and how many epochs are recorded.
        """
        self.command = [sys.executable, "-m", "hpo.cli", *command]
        self.environment = os.environ | {"HPO_STORAGE": url, LAUNCHER: str(os.getpid())}
        self.count = count
        self.show = show
        self.progress = progress
        self.processes: list[_Process] = []

    def __enter__(self) -> "LocalWorkers":
        self.processes = [_Process(self._start) for _ in range(self.count)]
        return self

    def _start(self) -> subprocess.Popen[str]:
        # A session of its own, so that Ctrl-C reaches the launcher alone, and it stops them in order.
        return subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def poll(self) -> bool:
        """Restart crashed workers; answers whether any is still at work, or has crashed meanwhile.

        Raises:
            HpoError: a worker crashed too often; the message has its last lines.
        """
        for process in self.processes:
            end = process.crashed()
            self._drain(process)
            if end:
                self._replace(process, end)
        return any(process.popen.poll() != 0 for process in self.processes)

    def _replace(self, process: _Process, end: str) -> None:
        process.count_crash(self.progress())
        hopeless = process.crashes > RESTARTS or process.fruitless > HOPELESS
        # A usage error would only repeat itself.
        if hopeless or process.popen.returncode == UsageError.exit_code:
            raise HpoError("\n".join([f"a worker {end}:", *process.lines]))
        self.show(f"a worker {end}; restart {process.crashes} of {RESTARTS}")
        process.restart()

    def _drain(self, process: _Process) -> None:
        for line in process.drain():
            self.show(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        alive = [process.popen for process in self.processes if process.popen.poll() is None]
        for popen in alive:
            popen.terminate()
        deadline = time.monotonic() + GRACE
        for popen in alive:
            try:
                popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        for process in self.processes:
            self._drain(process)


def watch_leases(database: Database, study: StudyRecord, options: WorkerOptions) -> Watch:
    """A watch over a study's leases, for the launcher: it works also when all workers are dead."""
    return Watch(Leases(database), options.retries, study.study_id)
