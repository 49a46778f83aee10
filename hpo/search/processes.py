"""Worker processes: watched, started again after crashes, and none left behind."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from hpo.errors import HpoError, UsageError

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
STORAGE = "HPO_STORAGE"

Show = Callable[[str], None]
"""Told each line that a worker prints."""
Progress = Callable[[], tuple[int, int]]
"""Asked after a crash how many trials have finished and how many epochs are recorded (`Studies.progress`)."""


@dataclass(frozen=True)
class End:
    """How a worker ended."""

    code: int
    """0: there was nothing left to do."""
    how: str = ""

    @classmethod
    def of(cls, code: int) -> Self:
        """From the exit code of a process."""
        if code < 0:
            return cls(code, f"was killed by {signal.Signals(-code).name}")
        return cls(code, f"ended with exit code {code}")


class Crashes:
    """How often in a row a worker has crashed."""

    def __init__(self) -> None:
        self.in_row = self.fruitless = 0
        """While no trial finished, and while no epoch was recorded."""
        self.seen = (0, 0)
        """How far the study was at the last crash."""

    def count(self, progress: tuple[int, int]) -> None:
        """Count a crash, after which `Studies.progress` was this."""
        epochs_before = self.seen[1]
        self.fruitless = 1 if progress[1] > epochs_before else self.fruitless + 1
        self.in_row = 1 if progress != self.seen else self.in_row + 1
        self.seen = progress

    @property
    def hopeless(self) -> bool:
        """Whether it would only go on like this."""
        return self.in_row > RESTARTS or self.fruitless > HOPELESS


class Watched(Protocol):
    """A worker, here or elsewhere, and those that took its place after crashes."""

    crashes: Crashes
    lines: deque[str]
    """The last that it printed."""

    def end(self) -> End | None:
        """How it ended; None while it is at work, or has not yet begun."""

    def drain(self) -> list[str]:
        """What it printed since the last call; all of it once it has ended."""

    def restart(self) -> None:
        """Start it again."""


class Workers(ABC):
    """Workers of one launcher: a context manager that leaves none behind."""

    def __init__(self, show: Show, progress: Progress) -> None:
        self.show = show
        self.progress = progress

    @property
    @abstractmethod
    def watched(self) -> Sequence[Watched]:
        """Each of them."""

    @abstractmethod
    def at_work(self) -> bool:
        """Whether any is at work, or has crashed meanwhile."""

    def poll(self) -> bool:
        """Start crashed workers again; answers whether any is still at work, or has crashed meanwhile.

        Raises:
            HpoError: a worker crashed too often; the message has its last lines.
        """
        for worker in self.watched:
            end = worker.end()
            self.drain(worker)
            if end and end.code:
                self._replace(worker, end)
        return self.at_work()

    def _replace(self, worker: Watched, end: End) -> None:
        worker.crashes.count(self.progress())
        # A usage error would only repeat itself.
        if worker.crashes.hopeless or end.code == UsageError.exit_code:
            raise HpoError("\n".join([f"a worker {end.how}:", *worker.lines]))
        self.show(f"a worker {end.how}; restart {worker.crashes.in_row} of {RESTARTS}")
        worker.restart()

    def drain(self, worker: Watched) -> None:
        """Show what a worker printed."""
        for line in worker.drain():
            self.show(line)

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Launch(Protocol):
    """Makes the workers of a launcher."""

    def __call__(
        self, command: Sequence[str], url: str, count: int, show: Show, progress: Progress
    ) -> Workers:
        """
        Args:
            command: Arguments of `hpo` that start one worker; no secret may be among them.
            url: The database's, with its password: handed on in the environment.
            count: How many.
            show: Told each line that a worker prints.
            progress: Asked after a crash.
        """


class WorkerProcess:
    """One worker process on this machine, and those that took its place after crashes."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.command = command
        self.environment = environment
        self.crashes = Crashes()
        self.lines: deque[str] = deque(maxlen=20)
        self._unread: queue.Queue[str] = queue.Queue()
        self.restart()

    def restart(self) -> None:
        """Start it (again)."""
        # A session of its own, so that Ctrl-C reaches the launcher alone, and it stops them in order.
        self.popen = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: TextIO) -> None:
        with stream:
            for line in stream:
                self._unread.put(line.rstrip())

    def drain(self) -> list[str]:
        """What it printed since the last call; all of it once the process has ended."""
        if self.popen.poll() is not None:
            self._reader.join(timeout=1.0)  # a child of its own may hold the pipe open
        lines = [self._unread.get() for _ in range(self._unread.qsize())]
        self.lines.extend(lines)
        return lines

    def end(self) -> End | None:
        """How it ended; None while it is at work."""
        code = self.popen.poll()
        return None if code is None else End.of(code)


def stop(processes: Sequence[WorkerProcess], grace: float) -> None:
    """Tell processes to hand their trials back; who has not ended after so many seconds is killed."""
    alive = [process.popen for process in processes if process.popen.poll() is None]
    for popen in alive:
        popen.terminate()
    deadline = time.monotonic() + grace
    for popen in alive:
        try:
            popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def environment_of(url: str) -> dict[str, str]:
    """What a worker process that this one starts is told: the database, and whom to follow."""
    return os.environ | {STORAGE: url, LAUNCHER: str(os.getpid())}


class LocalWorkers(Workers):
    """Worker processes on this machine; made as `Launch` says."""

    def __init__(self, command: Sequence[str], url: str, count: int, show: Show, progress: Progress) -> None:
        super().__init__(show, progress)
        self.command = [sys.executable, "-m", "hpo.cli", *command]
        self.environment = environment_of(url)
        self.count = count
        self.processes: list[WorkerProcess] = []

    @property
    def watched(self) -> Sequence[WorkerProcess]:
        """Each of them."""
        return self.processes

    def __enter__(self) -> Self:
        self.processes = [WorkerProcess(self.command, self.environment) for _ in range(self.count)]
        return self

    def at_work(self) -> bool:
        """Whether any is at work, or has crashed meanwhile."""
        return any(process.popen.poll() != 0 for process in self.processes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self.processes, GRACE)
        for process in self.processes:
            self.drain(process)
