"""Workers that may die at any moment: a stand-in for training, a log of what the store acknowledged, a crew.

A worker's processes are forked from a server that has imported everything, so that they start in
milliseconds. What a worker was told by the store is in its log before it acts on it, and outlives SIGKILL.
"""

import contextlib
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.config import StudyConfig, TrialSettings
from hpo.errors import Interrupted
from hpo.search.database import Database
from hpo.search.records import Changes, Claim, StudyRecord
from hpo.search.running import WorkerOptions
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import config_of, submit
from hpo.search.training import Epoch
from hpo.search.worker import Worker

KILL_POINTS = (
    "after claim",
    "before the first record",
    "between checkpoint and report",
    "before finish",
    "amid finish",
    "after finish",
)
LATE = 1000.0
"""Added to the values of an epoch in which the worker was stopped: they must never be stored."""


@dataclass(frozen=True)
class Plan:
    """How a worker works, and what will happen to it."""

    url: str
    study: str
    folder: Path
    """For logs, checkpoints and output."""
    lanes: int = 4
    lease: float = 1.0
    retries: int = 1000
    epoch: float = 0.02
    """Seconds that the stand-in trains for an epoch."""
    save_every: float = 0.1
    share: int = 0
    """Trials of one process of stock Optuna."""
    lost_answers: float = 0.0
    """Share of the transactions whose COMMIT is not answered, so that they are repeated."""
    end_at: str = ""
    """The kill point at which the process ends itself."""
    poison: Collection[int] = ()
    """Trials that end the process in their second epoch."""
    breaks: bool = False
    """Whether some trials raise, and some come to a value that is not a number."""

    @property
    def options(self) -> WorkerOptions:
        """For the worker."""
        return WorkerOptions(
            lanes=self.lanes, lease=self.lease, retries=self.retries, save_every=self.save_every, poll=0.05
        )


def value(number: int, epoch: int) -> float:
    """What the stand-in training comes to."""
    return math.sin(number + 1.0) * epoch / (epoch + 3.0) + 0.01 * epoch


def study_record(database: Database, config: StudyConfig) -> StudyRecord:
    """The study, submitted with the stand-in's data."""
    database.create_schema()
    return submit(Studies(database), config, "stand-in")


def stock_storage(url: str) -> optuna.storages.RDBStorage:
    """The database as plain Optuna opens it."""
    url = Database(url).url.render_as_string(hide_password=False)
    return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": sa.NullPool})


class Log:
    """What one worker was told by the store: a JSON object a line, written at once."""

    def __init__(self, folder: Path) -> None:
        self.worker = f"{os.getpid()}-{time.monotonic_ns()}"
        self.attempts: dict[int, int] = {}
        """Of the trials that it claimed, by number."""
        self._file = os.open(folder / f"{self.worker}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, kind: str, trial: int, began: float | None = None, **facts: Any) -> None:
        """Append an entry; `began` is when the transaction did."""
        at = time.monotonic()  # the same clock in all processes
        entry = {"kind": kind, "worker": self.worker, "trial": trial, "at": at, "began": began or at}
        entry |= {"attempt": self.attempts.get(trial, 1)} | facts
        os.write(self._file, f"{json.dumps(entry)}\n".encode())

    def claim(self, trial: int, attempt: int, began: float) -> None:
        """Append a claim."""
        self.attempts[trial] = attempt
        self.add("claim", trial, began)


class LoggedStore(Store):
    """A store whose answers are logged, and which ends the process at a kill point."""

    def __init__(self, database: Database, log: Log, end_at: str) -> None:
        super().__init__(database)
        self.log = log
        self.end_at = end_at
        self.numbers: dict[int, int] = {}

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


class ForgetfulDatabase(Database):
    """Some answers to COMMIT are lost, so that the transaction is repeated."""

    lost_answers = 0.0

    def write(self, work: Callable[[sa.Connection], Any]) -> Any:
        answer = super().write(work)
        return super().write(work) if random.random() < self.lost_answers else answer


class StandIn:
    """Trains no network; a trial's values depend on its number alone."""

    def __init__(self, plan: Plan, log: Log) -> None:
        self.plan = plan
        self.log = log
        self.stopped = False
        """Whether this process was stopped, and went on, since the epoch began."""

    def shape_key(self, settings: TrialSettings) -> str:
        return str(settings.hyperparameters.batch_size)

    def best_lanes(self) -> int:
        return 64

    def out_of_memory(self, error: BaseException) -> bool:
        return False

    def group(self, settings: TrialSettings) -> "StandInGroup":
        return StandInGroup(self)


class StandInGroup:
    """Trials and their epochs."""

    def __init__(self, training: StandIn) -> None:
        self.training = training
        self.epochs: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.epochs)

    def add(self, number: int, settings: TrialSettings, state: Any = None) -> None:
        assert number not in self.epochs
        self.epochs[number] = state or 0
        self.training.log.add("start", number, epoch=state or 0)

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[int, Epoch]:
        self.training.stopped = False
        time.sleep(self.training.plan.epoch)
        if stop():
            raise Interrupted("told to stop")
        for number, epoch in self.epochs.items():
            if number in self.training.plan.poison and epoch == 1:
                os._exit(99)
            if self.training.plan.breaks and number % 40 == 27 and epoch == 2:
                raise RuntimeError("this trial breaks in its third epoch")
        self.epochs = {number: epoch + 1 for number, epoch in self.epochs.items()}
        return {number: self._epoch(number, epoch) for number, epoch in self.epochs.items()}

    def _epoch(self, number: int, epoch: int) -> Epoch:
        late = LATE if self.training.stopped else 0.0
        bad = self.training.plan.breaks and number % 40 == 13 and epoch == 5
        return Epoch(epoch, math.nan if bad else value(number, epoch) + late, train_loss=1.0)

    def drop(self, numbers: Collection[int]) -> None:
        for number in numbers:
            del self.epochs[number]

    def state(self, number: int) -> int:
        return self.epochs[number]


class StandInCheckpoints:
    """A JSON file for each group."""

    def __init__(self, folder: Path, end: Callable[[str], None]) -> None:
        self.folder = folder
        self.end = end
        folder.mkdir(exist_ok=True)

    def save(self, group: str, states: Mapping[int, int]) -> bool:
        beside = self.folder / f"{group}.new"
        beside.write_text(json.dumps(states))
        beside.rename(self.folder / f"{group}.json")
        self.end("between checkpoint and report")
        return True

    def load(self, number: int, most: int) -> tuple[int, int] | None:
        found = []
        for file in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # discarded meanwhile
                found.append(json.loads(file.read_text()).get(str(number), 0))
        epoch = max((epoch for epoch in found if epoch <= most), default=0)
        return (epoch, epoch) if epoch else None

    def discard(self, group: str) -> None:
        (self.folder / f"{group}.json").unlink(missing_ok=True)

    def clear(self) -> None:
        for file in self.folder.glob("*.json"):
            file.unlink(missing_ok=True)


# --- what runs in a process of its own


def work(plan: Plan) -> None:
    """A worker that trains the stand-in."""
    database, study, stop = _begin(plan)
    log = Log(plan.folder)
    training = StandIn(plan, log)
    store = LoggedStore(database, log, plan.end_at)
    checkpoints = StandInCheckpoints(plan.folder / "checkpoints", store.end)
    worker = Worker(database, study, config_of(study), training, plan.options, stop, checkpoints)
    worker.store = store
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
    worker.store = LoggedStore(database, log, plan.end_at)
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


class Crew:
    """Processes at work; those that die are replaced. A context manager that leaves none behind."""

    def __init__(
        self,
        plan: Plan,
        count: int,
        target: Callable[..., None] = work,
        *arguments: Any,
        ends: Sequence[str] = (),
    ) -> None:
        """`ends`: kill points for the first processes; those that come after them live on."""
        self.plan = plan
        self.ends = list(ends)
        self.target = target
        self.arguments = arguments
        self.count = count
        self.codes: list[int] = []
        """Exit codes of those that ended otherwise than well."""
        self.processes: list[BaseProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pytest", "faults", "hpo.search.launch"])

    def __enter__(self) -> "Crew":
        for _ in range(self.count):
            self._start()
        return self

    def _start(self) -> None:
        plan = replace(self.plan, end_at=self.ends.pop()) if self.ends else self.plan
        process = self._context.Process(target=self.target, args=(plan, *self.arguments), daemon=True)
        process.start()
        self.processes.append(process)

    def tend(self) -> bool:
        """Replace the dead; answers whether any is at work."""
        for process in [process for process in self.processes if process.exitcode is not None]:
            self.processes.remove(process)
            if process.exitcode:
                self.codes.append(process.exitcode)
                self._start()
        return bool(self.processes)

    def until_done(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Tend them until all have ended well."""
        deadline = time.monotonic() + seconds
        while self.tend():
            if time.monotonic() > deadline:
                raise AssertionError(f"not done after {seconds} s; {self.codes}\n{self.output()[-4000:]}")
            meanwhile()
            time.sleep(0.02)

    def terminate(self) -> None:
        """Tell all to stop."""
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        """Kill any one of them."""
        alive = [process for process in self.processes if process.exitcode is None]
        if alive:
            random.choice(alive).kill()

    def output(self) -> str:
        """What they printed."""
        file = self.plan.folder / "output.txt"
        return file.read_text() if file.exists() else ""

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
            process.close()


class Every:
    """Does something at random moments, on average some seconds apart, as often as it is asked."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.seconds = seconds
        self.act = act
        self.times = 0
        self._next = time.monotonic() + seconds

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + random.uniform(0.2, 1.8) * self.seconds
            self.act()
            self.times += 1
