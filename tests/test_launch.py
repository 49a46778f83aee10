"""Launching workers: watched, restarted, and none left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from commands import alive, eventually
from conftest import study_of
from faults import study_record
from optuna.trial import TrialState
from searching import search, submitted

from hpo.errors import HpoError, UsageError
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.launch import open_studies, serve, watch_leases
from hpo.search.processes import HOPELESS, LAUNCHER, RESTARTS, LocalWorkers, WorkerProcess
from hpo.search.running import WorkerOptions
from hpo.search.status import RESULT, STARTED, STOPPED
from hpo.search.stopping import stop_on_signals
from hpo.search.studies import Studies

STUDY = "search: {width: {choices: [4, 8]}}\nsampler: random\ntrials: 2\ntraining: {epochs: 1}\n"


class Scripts(LocalWorkers):
    """Workers that run a line of Python instead of `hpo`."""

    def __init__(
        self,
        script: str,
        count: int,
        show: Callable[[str], None],
        progress: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        super().__init__([], "sqlite:///none.db", count, show, progress)
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


@pytest.mark.slow
def test_a_worker_that_crashes_is_started_again_a_few_times() -> None:
    shown: list[str] = []
    with (
        pytest.raises(HpoError, match=r"a worker ended with exit code 3:\n(why\n?)+$"),
        Scripts("print('why'); raise SystemExit(3)", 1, shown.append) as workers,
    ):
        finished(workers)
    assert shown.count("why") == RESTARTS + 1
    assert f"a worker ended with exit code 3; restart {RESTARTS} of {RESTARTS}" in shown


@pytest.mark.slow
def test_a_worker_that_crashed_before_anybody_looked_is_not_taken_for_one_that_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restart = WorkerProcess.restart

    def instant(process: WorkerProcess) -> None:
        restart(process)
        process.popen.wait()

    monkeypatch.setattr(WorkerProcess, "restart", instant)
    with (
        pytest.raises(HpoError, match="a worker ended with exit code 3"),
        Scripts("raise SystemExit(3)", 1, lambda _: None) as workers,
    ):
        finished(workers)


@pytest.mark.slow
def test_crashes_between_which_the_study_came_on_are_not_in_a_row() -> None:
    shown: list[str] = []
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Scripts(killed, 1, shown.append, lambda: (0, len(shown))) as workers:
        eventually(lambda: workers.poll() and len(shown) > HOPELESS)
    assert set(shown) == {f"a worker was killed by SIGKILL; restart 1 of {RESTARTS}"}


@pytest.mark.slow
def test_a_study_of_which_every_trial_kills_its_worker_is_given_up() -> None:
    shown: list[str] = []
    with (
        pytest.raises(HpoError, match="a worker ended with exit code 3"),
        Scripts("import os; os._exit(3)", 1, shown.append, lambda: (len(shown) // 3, 5)) as workers,
    ):
        finished(workers)
    assert len(shown) == HOPELESS


POISONED = """
import sys, threading
from pathlib import Path
from checker import Log
from crew import Plan
from standin import StandIn
from hpo.search.database import Database
from hpo.search.studies import Studies
from hpo.search.submission import config_of
from hpo.search.worker import Worker

plan = Plan(sys.argv[1], "test", Path(sys.argv[2]), lanes=4, lease=1.0, retries=2, poison=(0, 1))
database = Database(plan.url)
study = Studies(database).study(plan.study)
trainer = StandIn(plan, Log(plan.folder))
Worker(database, study, config_of(study), trainer, plan.options, threading.Event()).run()
"""


@pytest.mark.slow
def test_a_study_whose_trials_kill_more_workers_than_may_crash_in_a_row_is_searched_to_its_end(
    sqlite: Database, tmp_path: Path
) -> None:
    config = study_of("search: {dropout: {low: 0.0, high: 0.7}}\nsampler: random\ntrials: 12")
    study = study_record(sqlite, config)
    shown: list[str] = []
    watch = watch_leases(sqlite, study, WorkerOptions())
    workers = Scripts(POISONED, 1, shown.append, partial(Studies(sqlite).progress, study.study_id))
    workers.command += [sqlite.url.render_as_string(), str(tmp_path)]
    workers.environment |= {"PYTHONPATH": str(Path(__file__).parent)}
    with workers:
        while workers.poll():
            watch.look()
            time.sleep(0.05)
    crashes = [line for line in shown if line.startswith("a worker ended with exit code 99")]
    assert len(crashes) == 7 > RESTARTS, shown  # once together, then each of the two three times alone
    states = [trial.state for trial in read_trials(sqlite, study.study_id)]
    assert states == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 10


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


@pytest.mark.slow
def test_a_worker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.search.processes.GRACE", 0.5)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_worker_process_of_a_launcher_that_was_killed_stops_by_itself(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from hpo.search.stopping import stop_on_signals\n"
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


@pytest.mark.parametrize("launched", [False, True])
def test_that_a_worker_was_interrupted_while_it_starts_is_told_once(launched: bool) -> None:
    script = (
        "import os, signal, sys; from hpo.cli import main, workers\n"
        "workers.opened = lambda *_, **__: signal.raise_signal(signal.SIGTERM)\n"
        "sys.argv = ['hpo', 'worker']; main()"
    )
    environment = os.environ | ({LAUNCHER: str(os.getpid())} if launched else {})
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 130, ended.stderr
    assert ("interrupted, nothing is lost" in ended.stderr) == (not launched), ended.stderr
