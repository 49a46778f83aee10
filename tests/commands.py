"""Commands of `hpo` as processes of their own, in a folder and a database of their own."""

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.cli import main

HPO = (sys.executable, "-m", "hpo.cli")

WARM = multiprocessing.get_context("forkserver")
"""Starts processes as forks of one that has imported what commands import, which alone takes seconds."""
WARM.set_forkserver_preload(["pytest", "hpo.results.conclude", "hpo.search.launch"])


def _hear_interrupts() -> None:
    """A shell starts background jobs deaf to Ctrl-C, and so would be what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(command: list[str], folder: Path, environment: dict[str, str], output: Path, errors: Path) -> None:
    """What the process of a command does, in place of the one that it was forked from."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["hpo", *command]
    main()


class Desk:
    """A folder with study files, where `hpo` is run."""

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        self.folder = folder
        self.storage = storage or f"sqlite:///{folder}/hpo.db"
        self.environment = os.environ | {
            "HPO_STORAGE": self.storage,
            "HPO_CACHE": str(folder / "cache"),
            "COLUMNS": "110",
        }

    def study(self, text: str, file: str = "study.yaml") -> Path:
        """Write a study file."""
        path = self.folder / file
        path.write_text(text)
        return path

    def hpo(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must be exit code `code` and without a traceback.

        `started` is as a user starts it; here the imports are done already.
        """
        output, errors = self.folder / ".stdout", self.folder / ".stderr"
        command = [str(argument) for argument in arguments]
        process = WARM.Process(target=_run, args=(command, self.folder, self.environment, output, errors))
        process.start()
        process.join(200)
        assert process.exitcode is not None, "it did not end"
        done = subprocess.CompletedProcess(command, process.exitcode, output.read_text(), errors.read_text())
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert "Warning" not in done.stdout + done.stderr, done.stderr
        return done

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a command and read the last line of its standard output, all of which is this one line."""
        lines = self.hpo(*arguments, "--json").stdout.splitlines()
        assert len(lines) == 1, lines
        answer: dict[str, Any] = json.loads(lines[0])
        return answer

    @contextlib.contextmanager
    def started(self, *arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on in the background, and does not outlive the block."""
        process = subprocess.Popen(
            [*HPO, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_hear_interrupts,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def optuna(self, name: str) -> optuna.Study:
        """The study as plain Optuna reads it."""
        storage = optuna.storages.RDBStorage(self.storage, engine_kwargs={"poolclass": sa.NullPool})
        return optuna.load_study(study_name=name, storage=storage)

    def searches(self) -> bool:
        """Whether a trial is running now; on SQLite, and without making a schema while `hpo` does."""
        path = self.folder / "hpo.db"
        if not path.exists():
            return False
        with contextlib.closing(sqlite3.connect(path)) as connection:
            try:
                return bool(connection.execute("SELECT 1 FROM trials WHERE state = 'RUNNING'").fetchone())
            except sqlite3.OperationalError:  # it has no tables yet
                return False

    def states(self, name: str) -> list[str]:
        """The trials' states, by number."""
        return [trial.state.name for trial in self.optuna(name).trials]


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that have not ended."""
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in task.read_text().split()] if task.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Any, seconds: float = 60.0, pause: float = 0.1) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(pause)
