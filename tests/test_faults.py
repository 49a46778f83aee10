"""The store's promises under faults: workers are killed, stopped and cut off; nothing is lost or done twice.

`HPO_FAULTS=full` runs the sizes that the promises are stated for; the default ones fit into `make test`.
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import optuna
import pytest
from checker import Entry, check, read_logs
from commands import Desk, children, eventually
from conftest import study_of
from crew import Crew, Every, Plan
from faults import KILL_POINTS, launch, stock_storage, study_record, train, work
from optuna.trial import TrialState
from searching import search, submitted
from servers import Postgres
from standin import LATE, value

from hpo.config import StudyConfig
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.leases import Leases, Watch

pytestmark = pytest.mark.slow
FULL = os.environ.get("HPO_FAULTS") == "full"
OUTAGE = 30.0 if FULL else 7.0
"""Seconds without a database."""


def study(trials: int, epochs: int = 10, rest: str = "sampler: random") -> StudyConfig:
    return study_of(
        "search: {learning_rate: {low: 1.0e-4, high: 0.1, log: true}, batch_size: {choices: [32, 64]}}\n"
        f"trials: {trials}\ntraining: {{epochs: {epochs}}}\n{rest}"
    )


def planned(url: str, folder: Path, config: StudyConfig, **rest: object) -> Plan:
    with Database(url) as database:
        study_record(database, config)
    return Plan(url, config.name, folder, **rest)  # type: ignore[arg-type]


def stock_trials(plan: Plan) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=plan.study, storage=stock_storage(plan.url)).trials


def logged(folder: Path, pid: int | None) -> list[Entry]:
    return [entry for entry in read_logs(folder) if entry.worker.startswith(f"{pid}-")]


def verified(plan: Plan, budget: int) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study that was searched with the stand-in, in which the checker found nothing."""
    trials = stock_trials(plan)
    assert check(read_logs(plan.folder), trials, budget, plan.save_every, value) == []
    return trials


@contextlib.contextmanager
def going_on(act: Callable[[], object], pause: float) -> Iterator[None]:
    """Do something again and again."""
    end = threading.Event()

    def go_on() -> None:
        while not end.wait(pause):
            act()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


# --- killed


@pytest.mark.parametrize(
    "storage",
    ["sqlite", *(pytest.param(kind, marks=pytest.mark.postgres) for kind in ("postgres", "restarts"))],
)
def test_killed_workers_lose_no_trial_and_do_none_twice(
    storage: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: Postgres | None = None if storage == "sqlite" else request.getfixturevalue("postgres")
    modes = ["immediate", "fast", "immediate", "fast", "immediate"] if storage == "restarts" else []

    def restart() -> None:
        if server is not None and modes:
            server.stop(modes[-1])
            time.sleep(random.uniform(0, 1))
            server.start()
            modes.pop()

    trials, kills = (200, 50) if FULL else (40, 10)
    url = f"sqlite:///{tmp_path}/hpo.db" if server is None else server.database()
    config = study(trials)
    plan = planned(url, tmp_path, config, lanes=2, epoch=0.12, breaks=True, lost_answers=0.05)
    with Crew(plan, 8, work) as crew, going_on(restart, 1.5 if FULL else 0.3):
        storm = Every(0.4, crew.kill)
        crew.until_done(250, lambda: storm() if FULL or storm.times < 15 else None)
    stored = verified(plan, trials)
    print(f"{trials} trials, {crew.codes.count(-9)} kills, {len(read_logs(tmp_path))} entries")
    assert crew.codes.count(-9) >= kills and not modes
    failed = {trial.number for trial in stored if trial.state == TrialState.FAIL}
    assert failed == {number for number in range(trials) if number % 40 in {13, 27}}
    assert all("failure" in stored[number].user_attrs for number in failed)


def test_a_worker_may_end_at_any_point(make_database: Callable[[], str], tmp_path: Path) -> None:
    times, trials = (20, 300) if FULL else (3, 60)
    config = study(trials, epochs=6, rest="sampler: random\npruner: asha")
    plan = planned(make_database(), tmp_path, config, lanes=3, save_every=0.05)
    ends = [point for point in KILL_POINTS for _ in range(times)]
    random.shuffle(ends)
    with Crew(plan, 4, work, ends=ends) as crew:
        crew.until_done(250)
    verified(plan, trials)
    assert sorted(crew.codes) == sorted(100 + KILL_POINTS.index(point) for point in ends)


def test_a_trial_that_kills_its_worker_fails_alone(make_database: Callable[[], str], tmp_path: Path) -> None:
    config = study(16, epochs=4)
    plan = planned(make_database(), tmp_path, config, lanes=4, retries=1, poison=(5,))
    with Crew(plan, 2, work) as crew:
        crew.until_done(60)
    stored = verified(plan, 16)
    assert set(crew.codes) == {99}
    poisonous = stored.pop(5)
    assert poisonous.state == TrialState.FAIL
    assert poisonous.user_attrs["failure"] == (
        "its worker died 2 times in a row after epoch 1, training this trial alone"
    )
    assert {trial.state for trial in stored} == {TrialState.COMPLETE}
    assert max(trial.user_attrs["attempt"] for trial in stored) <= 2


def test_launchers_that_race_on_an_empty_database_make_one_study(
    make_database: Callable[[], str], tmp_path: Path
) -> None:
    config = study(12, epochs=2)
    for race in range(20 if FULL else 2):
        folder = tmp_path / str(race)
        folder.mkdir()
        url = make_database()
        url = f"sqlite:///{folder}/hpo.db" if url.startswith("sqlite") else url
        plan = Plan(url, config.name, folder, epoch=0.0)
        with Crew(plan, 6, launch, config) as crew:
            crew.until_done(60)
        assert crew.codes == [], crew.output()
        assert {trial.state for trial in verified(plan, 12)} == {TrialState.COMPLETE}
        assert optuna.get_all_study_names(stock_storage(url)) == [config.name]


# --- stopped


def test_a_worker_stopped_past_its_lease_cannot_write_and_goes_on_with_others(
    make_database: Callable[[], str], tmp_path: Path
) -> None:
    config = study(36, epochs=5)
    plan = planned(make_database(), tmp_path, config, lanes=2, epoch=0.2)

    def entries(kind: str) -> list[Entry]:
        return [entry for entry in read_logs(tmp_path) if entry.kind == kind]

    def reclaimed(since: float) -> bool:
        return any(entry.attempt > 1 and entry.at > since for entry in entries("claim"))

    with Crew(plan, 3, work) as crew:
        pid = crew.processes[0].pid
        assert pid is not None
        eventually(lambda: any(entry.epoch == 2 for entry in logged(tmp_path, pid)), 20)
        # It may be stopped in a transaction that keeps the others waiting, or between two epochs.
        for _ in range(6):
            os.kill(pid, signal.SIGSTOP)
            stopped = time.monotonic()
            while time.monotonic() - stopped < 4 * plan.lease and not reclaimed(stopped):
                time.sleep(0.05)
            os.kill(pid, signal.SIGCONT)
            time.sleep(3 * plan.epoch)
            if any(entry.value > LATE / 2 for entry in entries("refused")):
                break
        crew.until_done(60)
    assert crew.codes == [], crew.output()
    assert {trial.state for trial in verified(plan, 36)} == {TrialState.COMPLETE}
    log = logged(tmp_path, pid)
    refused = next(index for index, e in enumerate(log) if e.kind == "refused" and e.value > LATE / 2)
    assert any(entry.kind == "finish" for entry in log[refused:])


def test_a_worker_that_is_told_to_stop_hands_its_trials_back_with_a_checkpoint(
    make_database: Callable[[], str], tmp_path: Path
) -> None:
    plan = planned(
        make_database(), tmp_path, study(12, epochs=6), lanes=3, lease=30, epoch=0.3, save_every=30
    )
    with Crew(plan, 2, work) as crew:
        eventually(lambda: len({entry.trial for entry in read_logs(tmp_path) if entry.epoch > 1}) == 6, 20)
        time.sleep(0.1)
        told = time.monotonic()
        crew.terminate()
        crew.until_done(10)
    assert time.monotonic() - told < 10 and crew.codes == []
    assert {trial.state for trial in stock_trials(plan)} == {TrialState.WAITING}
    done = {entry.trial: entry.epoch for entry in read_logs(tmp_path) if entry.kind == "report"}
    with Crew(plan, 2, work) as crew:
        crew.until_done(60)
    verified(plan, 12)
    again = {
        entry.trial: entry.epoch for entry in read_logs(tmp_path) if entry.kind == "start" and entry.at > told
    }
    assert {number: again[number] for number in done} == done


@pytest.fixture(
    params=["locked", *(pytest.param(kind, marks=pytest.mark.postgres) for kind in ("frozen", "unreachable"))]
)
def outage(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Callable[[], AbstractContextManager[None]]]:
    """A database's URL, and what takes it away for a while."""
    if request.param == "locked":
        url = f"sqlite:///{tmp_path}/hpo.db"
        return url, lambda: locked(tmp_path / "hpo.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.database(), lambda: frozen(server) if request.param == "frozen" else down(server)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
    processes = [postmaster, *children(postmaster)]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def down(server: Postgres) -> Iterator[None]:
    server.stop("immediate")
    try:
        yield
    finally:
        server.start()


def test_an_outage_costs_no_worker_its_life_and_no_trial_its_lease(
    outage: tuple[str, Callable[[], AbstractContextManager[None]]], tmp_path: Path
) -> None:
    url, cut_off = outage
    # After an outage a worker is back within 3.2 s, its longest pause between two tries: leases are longer.
    plan = planned(url, tmp_path, study(36), lanes=2, epoch=0.1, lease=5)
    with Crew(plan, 4, work) as crew, Database(url) as database:
        watch = Watch(Leases(database), plan.retries)  # as a launcher's
        with going_on(watch.look, 0.1):
            eventually(lambda: len(read_logs(tmp_path)) > 30, 20)
            with cut_off():
                time.sleep(OUTAGE)
            crew.until_done(60)
    assert crew.codes == [], crew.output()
    verified(plan, 36)
    assert {entry.attempt for entry in read_logs(tmp_path) if entry.kind == "claim"} == {1}


# --- with networks


def test_networks_whose_workers_were_killed_come_to_the_same_values(tmp_path: Path) -> None:
    config = study_of(
        "search: {dropout: {low: 0.0, high: 0.7}, batch_size: {choices: [16, 32]}}\n"
        "trials: 8\ntraining: {epochs: 40}\nsampler: random"
    )
    with Database(f"sqlite:///{tmp_path}/calm.db") as calm:
        calm.create_schema()
        undisturbed = search(calm, config)
    plan = planned(f"sqlite:///{tmp_path}/hpo.db", tmp_path, config, lanes=4, save_every=0.3)
    with Crew(plan, 2, train) as crew:
        storm = Every(1.0, crew.kill)
        crew.until_done(120, lambda: storm() if storm.times < 4 else None)
    trials = stock_trials(plan)
    assert check(read_logs(tmp_path), trials, 8, plan.save_every) == []
    assert crew.codes.count(-9) >= 3 and set(crew.codes) == {-9}, crew.output()
    for left, right in zip(trials, undisturbed, strict=True):
        assert left.state == TrialState.COMPLETE and left.params == right.params
        assert left.intermediate_values == pytest.approx(right.intermediate_values, abs=1e-6)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_sigterm_ends_hpo_worker_within_ten_seconds(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.study(
        "name: long\ndata: {source: sklearn, name: breast_cancer}\nsearch: {dropout: {low: 0.0, high: 0.7}}\n"
        "trials: 8\ntraining: {epochs: 100000, batch_size: 16, compile: 'off'}"
    )
    desk.hpo("submit", "study.yaml")
    with desk.started("worker", "long") as worker:
        eventually(lambda: any(t.intermediate_values for t in desk.optuna("long").trials))
        told = time.monotonic()
        worker.terminate()
        assert worker.wait(timeout=20) == 130
        assert time.monotonic() - told < 10
    assert set(desk.states("long")) == {"WAITING"}
    assert list(tmp_path.glob("hpo.db.checkpoints/*/*.safetensors"))


FILLED = """
import resource, sys, threading
from pathlib import Path
from hpo.search.database import Database
from hpo.search.launch import serve
from hpo.search.running import WorkerOptions
from hpo.search.studies import Studies

limit = 6 * 2**20  # the database's log comes to 4 MiB
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
with Database(sys.argv[1]) as database:
    options = WorkerOptions(lanes=2, save_every=0.0)
    serve(database, Studies(database).study("test"), options, threading.Event(), Path(sys.argv[2]))
"""


def test_a_full_disk_costs_checkpoints_and_no_trial(tmp_path: Path) -> None:
    config = study_of(
        "options: {width: 500, depth: 3}\nsearch: {dropout: {low: 0.0, high: 0.7}}\n"
        "trials: 2\ntraining: {epochs: 2, batch_size: 256}\nsampler: random"
    )
    url = f"sqlite:///{tmp_path}/hpo.db"
    with Database(url) as database:
        database.create_schema()
        submitted(database, config)
        command = [sys.executable, "-c", FILLED, url, str(tmp_path / "checkpoints")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        trials = read_trials(database, 1)
    assert "a checkpoint could not be written" in done.stdout and "File too large" in done.stdout
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert all(set(trial.intermediate_values) == {1, 2} for trial in trials)
    assert not [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
