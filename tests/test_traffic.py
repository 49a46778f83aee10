"""What a worker asks of its database: statements are round trips to Postgres, commits wait for the disk."""

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checker import Log
from conftest import study_of
from crew import Plan
from faults import study_record
from optuna.trial import TrialState
from sqlalchemy import event
from standin import StandIn

from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.worker import Worker

Traffic = Callable[[Callable[[], object]], list[list[str]]]


@pytest.fixture
def traffic(database: Database) -> Iterator[Traffic]:
    """Tells what is done in which transactions: statements by their first words."""
    transactions: list[list[str]] = []

    def begun(_: Any) -> None:
        transactions.append([])

    def executed(_: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, many: bool) -> None:
        words = statement.replace("INSERT INTO", "INSERT").split()
        if words[0] == "SELECT":
            words[1] = words[words.index("FROM") + 1].rstrip(",")
        if words[0] != "BEGIN":  # ours, on SQLite
            transactions[-1].append(f"{words[0]} {words[1]}")
            assert database.sqlite or not many, statement

    def during(act: Callable[[], object]) -> list[list[str]]:
        transactions.clear()
        act()
        return list(transactions)

    event.listen(database.engine, "begin", begun, insert=True)
    event.listen(database.engine, "before_cursor_execute", executed)
    yield during
    event.remove(database.engine, "begin", begun)
    event.remove(database.engine, "before_cursor_execute", executed)


@pytest.fixture
def worker(database: Database, tmp_path: Path) -> Worker:
    """One that has just trained and recorded an epoch of eight trials, and reads the study again at once."""
    config = study_of(
        "search: {learning_rate: {low: 0.01, high: 0.1}, optimizer: {choices: [adam, sgd]}}\n"
        "sampler: random\npruner: {name: median, startup_trials: 50}\ntrials: 24\ntraining: {epochs: 9}"
    )
    study = study_record(database, config)
    plan = Plan("", config.name, tmp_path, lanes=8, epoch=0.0)
    made = Worker(database, study, config, StandIn(plan, Log(tmp_path)), plan.options, threading.Event())
    made._refill()
    made._settle(made._train_epoch())
    made._read_again = 0.0
    return made


def test_an_epoch_of_a_worker_by_itself_takes_three_statements_and_on_postgres_two(
    worker: Worker, traffic: Traffic
) -> None:
    sqlite = ["UPDATE hpo_leases", "INSERT trial_intermediate_values"]
    assert traffic(lambda: worker._settle(worker._train_epoch())) == [
        sqlite if worker.held.store.database.sqlite else ["WITH owned"],
        ["SELECT trials"],
    ]


def test_in_very_short_epochs_what_others_did_is_not_read_each_time(worker: Worker, traffic: Traffic) -> None:
    worker._read_again = math.inf
    assert len(traffic(lambda: worker._settle(worker._train_epoch()))) == 1


def test_a_pruning_is_recorded_with_the_next_values_where_these_come_soon(
    worker: Worker, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def running() -> int:
        trials = read_trials(worker.held.store.database, worker.study.study_id)
        return sum(trial.state == TrialState.RUNNING for trial in trials)

    monkeypatch.setattr(worker.advice, "prunes", lambda trial: trial.claim.number == min(numbers))
    monkeypatch.setattr("hpo.search.worker.default_in_flight", lambda config: 8)
    worker._read_again = math.inf
    numbers = {trial.claim.number for trial in worker.held.running.values()}
    assert len(traffic(lambda: worker._settle(worker._train_epoch()))) == 1
    assert (running(), len(worker.held.running)) == (8, 7)
    # The pruned one leaves room for another, although the database does not know yet.
    assert worker._refill() and (running(), len(worker.held.running)) == (9, 8)
    numbers = {-1}
    assert len(traffic(lambda: worker._settle(worker._train_epoch()))) == 1
    assert (running(), len(worker.held.running)) == (8, 8)

    numbers = {trial.claim.number for trial in worker.held.running.values()}
    epochs = worker._train_epoch()
    worker._seconds = 1.0
    assert len(traffic(lambda: worker._settle(epochs))) == 2
    assert running() == 7


def test_a_claim_after_one_that_got_nothing_only_looks_until_there_is_something(
    worker: Worker, traffic: Traffic
) -> None:
    def claim(in_flight: int) -> int:
        return len(worker.held.claim(6, in_flight))

    assert [claim(8), claim(8)] == [0, 0]
    assert traffic(lambda: claim(8)) == [["SELECT trials"]]
    assert claim(9) == 1


def test_a_claim_takes_four_statements_however_many_trials_and_on_postgres_three(
    worker: Worker, traffic: Traffic
) -> None:
    def claim() -> None:
        assert len(worker.held.claim(6, 100)) == 6

    taking = ["UPDATE trials", "INSERT hpo_leases"] if worker.held.store.database.sqlite else ["WITH started"]
    assert traffic(claim) == [["SELECT studies", "SELECT trials", *taking]]


def test_the_end_of_all_trials_takes_one_transaction(worker: Worker, traffic: Traffic) -> None:
    for _ in range(7):
        worker._settle(worker._train_epoch())
    sqlite = [
        "UPDATE hpo_leases",
        "INSERT trial_intermediate_values",
        "INSERT trial_values",
        "INSERT trial_user_attributes",
        "UPDATE trials",
    ]
    assert traffic(lambda: worker._settle(worker._train_epoch())) == [
        sqlite if worker.held.store.database.sqlite else ["WITH owned"]
    ]
    assert not worker.held.running
    worker.snapshot.refresh([])
    assert worker.snapshot.history._settled == 8  # trials that no reading looks at again
    assert {
        len(t.intermediate_values) for t in read_trials(worker.held.store.database, worker.study.study_id)
    } == {9}


def test_what_others_claim_is_read_with_the_next_epoch(worker: Worker, traffic: Traffic) -> None:
    worker.held.store.claim(worker.study.study_id, "another", {}, 2, 100)
    (look, *reading) = traffic(lambda: worker._settle(worker._train_epoch()))[1:]
    assert look == ["SELECT trials"] and len(reading) == 1
    assert len(worker.snapshot.history.running) == 10
    worker._read_again = 0.0
    # Where others are at work there is something to read each time: nobody looks first.
    assert len(traffic(lambda: worker._settle(worker._train_epoch()))) == 2
