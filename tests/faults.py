"""What becomes of a worker: it ends itself at a kill point, answers are lost, and what it was told is logged.

The log is written before the worker acts on what the store answered, and outlives SIGKILL.
"""

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import sqlalchemy as sa
from checker import Log
from crew import Plan
from standin import StandIn, StandInCheckpoints, value

from hpo.config import StudyConfig, TrialSettings
from hpo.search.database import Database
from hpo.search.fenced import Fenced
from hpo.search.records import Changes, Claim, StudyRecord
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import config_of, submit
from hpo.search.worker import Worker

KILL_POINTS = (
    "after claim",
    "before the first record",
    "between checkpoint and report",
    "before finish",
    "amid finish",
    "after finish",
)


def study_record(database: Database, config: StudyConfig) -> StudyRecord:
    """The study, submitted with the stand-in's data."""
    database.create_schema()
    return submit(Studies(database), config, "stand-in")


def stock_storage(url: str) -> optuna.storages.RDBStorage:
    """The database as plain Optuna opens it."""
    url = Database(url).url.render_as_string(hide_password=False)
    return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": sa.NullPool})


class LoggedStore(Store):
    """A store whose answers are logged, and which ends the process at a kill point."""

    def __init__(self, database: Database, log: Log, end_at: str, lease: float = 30.0) -> None:
        super().__init__(database, lease)
        self.log = log
        self.end_at = end_at
        self.numbers: dict[int, int] = {}
        self._fenced = EndingFenced(database, self.end)

    def end(self, point: str, reached: object = True) -> None:
        """End the process, if this is where it is to end and it has been `reached`."""
        if reached and point == self.end_at:
            os._exit(100 + KILL_POINTS.index(point))

    def claim(self, study_id: int, worker: str, held: Mapping[int, int], *room: int) -> list[Claim]:
        began = time.monotonic()
        claims = super().claim(study_id, worker, held, *room)
        for claim in claims:
            self.numbers[claim.trial_id] = claim.number
            self.log.claim(claim.number, claim.attempt, began)
        self.end("after claim", claims)
        return claims

    def record(self, worker: str, held: Mapping[int, int], changes: Changes) -> set[int]:
        began = time.monotonic()
        self.end("before the first record", changes.params)
        self.end("before finish", changes.finishes)
        lost = super().record(worker, held, changes)
        self.end("after finish", changes.finishes)
        for trial_id, attempt in held.items():
            if trial_id in lost:
                self.log.add("lost", self.numbers[trial_id], began, attempt=attempt)
        for trial_id, epoch, found in changes.steps:
            kind = "refused" if trial_id in lost else "report"
            facts = {"attempt": held[trial_id], "epoch": epoch, "value": found}
            self.log.add(kind, self.numbers[trial_id], began, **facts)
        for finish in changes.finishes:
            if finish.trial_id not in lost:
                facts = {"attempt": held[finish.trial_id], "state": finish.state.name, "value": finish.value}
                self.log.add("finish", self.numbers[finish.trial_id], began, **facts)
        return lost

    def _finish(self, connection: sa.Connection, finishes: Any) -> None:
        super()._finish(connection, finishes)
        self.end("amid finish", finishes)


class EndingFenced(Fenced):
    """On Postgres: ends the process when the one statement was executed and its answer is not used yet."""

    def __init__(self, database: Database, end: Callable[[str, object], None]) -> None:
        super().__init__(database)
        self.end = end

    def __call__(self, *arguments: Any) -> set[int]:
        owned = super().__call__(*arguments)
        self.end("amid finish", arguments[-1])
        return owned


class ForgetfulDatabase(Database):
    """Some answers to COMMIT are lost, so that the transaction is repeated."""

    lost_answers = 0.0

    def write(self, work: Callable[[sa.Connection], Any]) -> Any:
        answer = super().write(work)
        return super().write(work) if random.random() < self.lost_answers else answer

    def act(self, work: Callable[[sa.Connection], Any]) -> Any:
        answer = super().act(work)
        return super().act(work) if random.random() < self.lost_answers else answer


# --- what runs in a process of its own


def work(plan: Plan) -> None:
    """A worker that trains the stand-in."""
    database, study, stop = _begin(plan)
    log = Log(plan.folder)
    training = StandIn(plan, log)
    store = LoggedStore(database, log, plan.end_at, plan.lease)
    checkpoints = StandInCheckpoints(plan.folder / "checkpoints", store.end)
    worker = Worker(database, study, config_of(study), training, plan.options, stop, checkpoints)
    worker.held.store = store
    signal.signal(signal.SIGCONT, lambda *_: setattr(training, "stopped", True))
    worker.run()


def train(plan: Plan) -> None:
    """A worker that trains networks."""
    import torch

    from hpo.data.prepare import prepare
    from hpo.search.trainer import Trainer
    from hpo.training.checkpoint import Checkpoints

    torch.set_num_threads(1)
    os.environ["HPO_CACHE"] = str(plan.folder / "cache")
    database, study, stop = _begin(plan)
    config = config_of(study)
    log = Log(plan.folder)

    class LoggedTrainer(Trainer):
        def group(self, settings: TrialSettings) -> Any:
            group = super().group(settings)
            add = group.add

            def logged(number: int, settings: TrialSettings, state: Any = None) -> None:
                add(number, settings, state)
                log.add("start", number, epoch=next(iter(state.values())).epoch if state else 0)

            group.add = logged  # type: ignore[method-assign]
            return group

    checkpoints = Checkpoints(plan.folder / "checkpoints")
    trainer = LoggedTrainer(config, prepare(config))
    worker = Worker(database, study, config, trainer, plan.options, stop, checkpoints)
    worker.held.store = LoggedStore(database, log, plan.end_at, plan.lease)
    worker.run()


def launch(plan: Plan, config: StudyConfig) -> None:
    """A launcher: makes the schema, submits the study, and works on it."""
    with Database(plan.url) as database:
        study_record(database, config)
    work(plan)


def optimize(plan: Plan) -> None:
    """Stock Optuna's worker."""
    _output(plan)
    storage = optuna.storages.RDBStorage(plan.url, engine_kwargs={"connect_args": {"timeout": 60}})
    study = optuna.load_study(study_name=plan.study, storage=storage)
    log = Log(plan.folder)

    def objective(trial: optuna.Trial) -> float:
        log.claim(trial.number, 1, time.monotonic())
        for epoch in range(1, 4):
            time.sleep(plan.epoch)
            trial.report(value(trial.number, epoch), epoch)
            log.add("report", trial.number, epoch=epoch, value=value(trial.number, epoch))
        return value(trial.number, 3)

    def finished(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        log.add("finish", trial.number, state=trial.state.name, value=trial.value)

    study.optimize(objective, n_trials=plan.share, callbacks=[finished])


def _begin(plan: Plan) -> tuple[Database, StudyRecord, threading.Event]:
    _output(plan)
    database = ForgetfulDatabase(plan.url)
    database.lost_answers = plan.lost_answers
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return database, Studies(database).study(plan.study), stop


def _output(plan: Plan) -> None:
    """Print into a file, and end with the process that started this one."""
    file = os.open(plan.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(98)

    threading.Thread(target=follow, daemon=True).start()
