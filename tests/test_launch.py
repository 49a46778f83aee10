"""Launching workers: watched, restarted, and none left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import alive, eventually
from conftest import study_of
from searching import search, submitted

from hpo.errors import HpoError, UsageError
from hpo.search.database import Database
from hpo.search.launch import LAUNCHER, RESTARTS, LocalWorkers, open_studies, serve, stop_on_signals
from hpo.search.running import WorkerOptions
from hpo.search.status import RESULT, STARTED, STOPPED
from hpo.search.studies import Studies

STUDY = "search: {width: {choices: [4, 8]}}\nsampler: random\ntrials: 2\ntraining: {epochs: 1}\n"


class Scripts(LocalWorkers):
    """Workers that run a line of Python instead of `hpo`."""

    def __init__(self, script: str, count: int, show: Callable[[str], None]) -> None:
        super().__init__([], "sqlite:///none.db", count, show)
        self.command = [sys.executable, "-c", script]


def finished(workers: LocalWorkers) -> None:
    deadline = time.monotonic() + 60
    while workers.poll():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_workers_print_is_shown_and_it_ends_with_the_last_of_them() -> None:
    shown: list[str] = []
    with Scripts("print('a line')", 2, shown.append) as workers:
        finished(workers)
    assert shown == ["a line", "a line"]


def test_workers_are_told_the_database_and_their_launcher_in_the_environment_alone() -> None:
    shown: list[str] = []
    script = f"import os; print(os.environ['HPO_STORAGE'], os.environ['{LAUNCHER}'], os.getppid())"
    with Scripts(script, 1, shown.append) as workers:
        finished(workers)
        assert not any("none.db" in part for part in workers.command)
    assert shown == [f"sqlite:///none.db {os.getpid()} {os.getpid()}"]


def test_a_worker_that_crashes_is_started_again_a_few_times() -> None:
    shown: list[str] = []
    with (
        pytest.raises(HpoError, match=r"a worker ended with exit code 3:\n(why\n?)+$"),
        Scripts("print('why'); raise SystemExit(3)", 1, shown.append) as workers,
    ):
        finished(workers)
    assert shown.count("why") == RESTARTS + 1
    assert f"a worker ended with exit code 3; restart {RESTARTS} of {RESTARTS}" in shown


def test_crashes_between_which_it_worked_for_long_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.search.launch.STEADY", 0.0)
    shown: list[str] = []
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Scripts(killed, 1, shown.append) as workers:
        eventually(lambda: workers.poll() and len(shown) > RESTARTS)
    assert set(shown) == {f"a worker was killed by SIGKILL; restart 1 of {RESTARTS}"}


def test_a_usage_error_is_not_repeated() -> None:
    shown: list[str] = []
    with (
        pytest.raises(HpoError, match="exit code 2"),
        Scripts("print('wrong data'); raise SystemExit(2)", 1, shown.append) as workers,
    ):
        finished(workers)
    assert shown == ["wrong data"]


def test_no_worker_outlives_its_launcher_s_block() -> None:
    with Scripts("import time; time.sleep(600)", 3, print) as workers:
        assert workers.poll()
        pids = [process.popen.pid for process in workers.processes]
        assert all(map(alive, pids))
    assert not any(map(alive, pids))


def test_a_worker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.search.launch.GRACE", 0.5)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
        "time.sleep(600)"
    )
    shown: list[str] = []
    with Scripts(deaf, 1, shown.append) as workers:
        eventually(lambda: workers.poll() and "deaf" in shown)
        pid = workers.processes[0].popen.pid
    assert not alive(pid)


def test_a_signal_stops_instead_of_killing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_name_every_open_study_is_worked_on(sqlite: Database) -> None:
    first, stopped, last = (submitted(sqlite, study_of(f"{STUDY}name: {name}")) for name in "abc")
    Studies(sqlite).set_attrs(stopped.study_id, {STOPPED: True})
    stop = threading.Event()
    done = []
    for record in open_studies(sqlite, None, stop):
        serve(sqlite, record, WorkerOptions(poll=0.05), stop)
        done.append(record.name)
    assert done == [first.name, last.name]


def test_studies_whose_hours_are_over_or_whose_result_is_recorded_are_not_open(sqlite: Database) -> None:
    over, finished, open_one = (
        submitted(sqlite, study_of(f"{STUDY}name: {name}\nhours: 1")) for name in "abc"
    )
    Studies(sqlite).set_attrs(over.study_id, {STARTED: time.time() - 3601})
    Studies(sqlite).set_attrs(finished.study_id, {RESULT: {}})
    names = []
    stop = threading.Event()
    for record in open_studies(sqlite, None, stop):
        names.append(record.name)
        stop.set()
    assert names == [open_one.name]


def test_an_unknown_study_is_an_error(sqlite: Database) -> None:
    with pytest.raises(UsageError, match="no study 'x'"):
        list(open_studies(sqlite, "x", threading.Event()))


def test_a_worker_refuses_data_other_than_those_submitted(sqlite: Database, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(60)))
    config = study_of(f"{STUDY}data: {{source: csv, path: table.csv, target: y}}", tmp_path)
    assert len(search(sqlite, config)) == 2
    table.write_text(table.read_text() + "61,1\n")
    study = Studies(sqlite).study("test")
    with pytest.raises(UsageError, match="was submitted with other data"):
        serve(sqlite, study, WorkerOptions(), threading.Event())


def test_a_worker_process_of_a_launcher_that_was_killed_stops_by_itself(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from hpo.search.launch import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    print('up', flush=True)\n"
        "    sys.exit(0 if stop.wait(60) else 1)\n"
    )
    launcher = (
        "import os, subprocess, sys, time\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {script!r}],"
        f" env=os.environ | {{'{LAUNCHER}': str(os.getpid())}}, stdout=subprocess.PIPE, text=True,"
        " start_new_session=True)\n"
        "worker.stdout.readline()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate()
    eventually(lambda: not alive(worker), 10)
