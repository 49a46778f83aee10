"""A worker: claims trials, samples their parameters, trains them side by side, reports, prunes, refills."""

import math
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from hpo.config import StudyConfig, TrialSettings
from hpo.errors import TrialError
from hpo.search.database import Database
from hpo.search.history import History
from hpo.search.leases import Heartbeat, Leases
from hpo.search.records import Claim, StudyRecord
from hpo.search.samplers import default_in_flight, learns, make_pruner, make_sampler
from hpo.search.snapshot import Snapshot
from hpo.search.status import STARTED, STOPPED
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.training import Epoch, Group, Trains
from hpo.space import suggest

log = structlog.get_logger()


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works."""

    lanes: int = 64
    """Models that train side by side."""
    workers: int = 1
    """Workers that share the study's trials in flight."""
    lease: float = 30.0
    """Seconds after which a worker that does not renew its leases counts as dead."""
    retries: int = 2
    """Times that a trial is tried again after its worker died in it without a new epoch."""
    poll: float = 0.5
    """Seconds between looks for work while others hold the last trials."""


@dataclass
class RunningTrial:
    """A trial that this worker trains."""

    claim: Claim
    frozen: FrozenTrial
    settings: TrialSettings
    group: str = ""
    """Key of the group that trains it."""
    started: float = field(default_factory=time.monotonic)
    decided: int = 0
    """Pruning was decided up to this epoch by the attempt before."""
    values: dict[int, float] = field(default_factory=dict)
    """By epoch."""
    last: Epoch | None = None


def worker_name() -> str:
    """A name that no other process has."""
    return f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Worker:
    """Searches one study until no trial is left, or until told to stop."""

    def __init__(
        self,
        database: Database,
        study: StudyRecord,
        config: StudyConfig,
        trainer: Trains,
        options: WorkerOptions,
        stop: threading.Event,
    ) -> None:
        self.study = study
        self.config = config
        self.trainer = trainer
        self.options = options
        self.stop = stop
        self.name = worker_name()
        self.store = Store(database)
        self.studies = Studies(database)
        self.leases = Leases(database)
        self.snapshot = Snapshot(study, History(database, study.study_id))
        self.optuna = Study(study.name, self.snapshot, pruner=make_pruner(config))
        self.learns = learns(config)
        self.groups: dict[str, Group] = {}
        """By shape key; a trial that is retried alone has one of its own."""
        self.running: dict[int, RunningTrial] = {}
        """By trial id."""
        self._looked = -math.inf

    def run(self) -> None:
        """Work until every trial of the study has finished, or `stop` is set.

        Raises:
            StorageError: the database stayed away for longer than its patience.
        """
        with Heartbeat(self.leases, self.name, self.options.lease, self.options.retries):
            while not self.stop.is_set():
                self._refill()
                if self.running:
                    self._settle(self._train_epoch())
                elif self._over():
                    return
                else:
                    self.stop.wait(self.options.poll)
            self._hand_back()

    # --- claiming and sampling

    def _refill(self) -> None:
        in_flight = default_in_flight(self.config)
        share = -(-in_flight // self.options.workers)
        room = max(1, min(self.options.lanes // self.config.folds, share)) - len(self.running)
        if room <= 0 or any(trial.claim.alone for trial in self.running.values()) or self._closed():
            return
        claims = self.store.claim(self.study.study_id, self.name, self._held(), room, in_flight)
        if not claims:
            return
        if self.learns or any(claim.attempt > 1 for claim in claims):
            self.snapshot.history.refresh(self._numbers())
        for claim in claims:
            self._start(claim)
        self._record()

    def _start(self, claim: Claim) -> None:
        """Sample a trial's parameters and begin to train it."""
        frozen = self.snapshot.adopt(claim)
        self.optuna.sampler = make_sampler(self.config, claim.number)
        params = suggest(Trial(self.optuna, claim.trial_id), self.config.search)
        trial = RunningTrial(claim, frozen, self.config.settings(params))
        trial.decided = max(frozen.intermediate_values, default=0)
        self.running[claim.trial_id] = trial
        self._place(trial, self.trainer.shape_key(trial.settings))

    def _place(self, trial: RunningTrial, key: str) -> None:
        """Have the group called `key` train a trial; one that cannot be trained fails."""
        group = self.groups[key] if key in self.groups else self.trainer.group(trial.settings)
        try:
            group.add(trial.claim.number, trial.settings)
        except TrialError as error:
            self._fail(trial, str(error))
        else:
            self.groups[key] = group
            trial.group = key

    def _held(self) -> dict[int, int]:
        return {trial_id: trial.claim.attempt for trial_id, trial in self.running.items()}

    def _numbers(self) -> set[int]:
        return {trial.claim.number for trial in self.running.values()}

    # --- training

    def _train_epoch(self) -> dict[int, Epoch]:
        """Train one epoch of each group in turn; answers by trial id. What raises, fails."""
        epochs: dict[int, Epoch] = {}
        for key, group in list(self.groups.items()):
            trials = {t.claim.number: t for t in self.running.values() if t.group == key}
            try:
                trained = group.train_epoch()
            except Exception as error:  # noqa: BLE001  (the user's module may raise anything)
                self._isolate(list(trials.values()), error)
            else:
                epochs |= {trials[number].claim.trial_id: epoch for number, epoch in trained.items()}
        return epochs

    def _isolate(self, trials: list[RunningTrial], error: Exception) -> None:
        """Fail the trial that raised; of several, start each again by itself, to tell which one it is.

        Random streams are keyed, so that the innocent ones come to the same values again.
        """
        if len(trials) == 1:
            text = "".join(traceback.format_exception(error)[-6:])
            self.snapshot.set_trial_user_attr(trials[0].claim.trial_id, "traceback", text)
            self._fail(trials[0], f"{type(error).__name__}: {error}")
            return
        log.warning(
            "a fused epoch raised; its trials go on one by one", trials=len(trials), reason=str(error)
        )
        self.groups.pop(trials[0].group)
        for trial in trials:
            trial.decided = max(trial.decided, *trial.values, 0)
            trial.values = {}
            self._place(trial, f"trial {trial.claim.number}")

    # --- reporting and ending

    def _settle(self, epochs: Mapping[int, Epoch]) -> None:
        """Record all epochs in one transaction; only then decide what to prune."""
        held = self._held()
        for trial_id, epoch in epochs.items():
            self._note(self.running[trial_id], epoch)
        self._record(held)
        if self.learns and self.running:
            self.snapshot.history.refresh(self._numbers())
            held = self._held()
            for trial_id in epochs:
                if trial_id in self.running:
                    self._prune(self.running[trial_id])
            if self.snapshot.changes:
                self._record(held)

    def _note(self, trial: RunningTrial, epoch: Epoch) -> None:
        if epoch.failure:
            self._fail(trial, epoch.failure)
            return
        trial.values[epoch.number] = epoch.value
        self.snapshot.set_trial_intermediate_value(trial.claim.trial_id, epoch.number, epoch.value)
        trial.last = epoch
        if epoch.number >= self.config.training.epochs:
            self._finish(trial, TrialState.COMPLETE, self.config.chosen(trial.values))

    def _prune(self, trial: RunningTrial) -> None:
        last = max(trial.values)
        if last > trial.decided and self.optuna.pruner.prune(self.optuna, trial.frozen):
            self._finish(trial, TrialState.PRUNED, trial.values[last])

    def _fail(self, trial: RunningTrial, reason: str) -> None:
        self.snapshot.set_trial_user_attr(trial.claim.trial_id, "failure", reason)
        log.warning("a trial failed", trial=trial.claim.number, reason=reason)
        self._finish(trial, TrialState.FAIL, None)

    def _finish(self, trial: RunningTrial, state: TrialState, value: float | None) -> None:
        attrs: dict[str, object] = {
            "worker": self.name,
            "attempt": trial.claim.attempt,
            "epochs": max(trial.values, default=0),
            "seconds": round(time.monotonic() - trial.started, 3),
        }
        if trial.last is not None and self.config.folds > 1:
            attrs["fold_spread"] = trial.last.spread
        for key, attr in attrs.items():
            self.snapshot.set_trial_user_attr(trial.claim.trial_id, key, attr)
        self.snapshot.finish(trial.claim.trial_id, state, value)
        self._leave(trial)

    def _leave(self, trial: RunningTrial) -> None:
        """Train a trial no longer."""
        del self.running[trial.claim.trial_id]
        group = self.groups.get(trial.group)
        if group is None:  # it never came into one
            return
        group.drop([trial.claim.number])
        if not len(group):
            del self.groups[trial.group]

    def _record(self, held: Mapping[int, int] | None = None) -> None:
        """Record what was written to the snapshot, and let go of trials whose lease was lost."""
        held = self._held() if held is None else held
        for trial_id in self.store.record(self.name, held, self.snapshot.take_changes()):
            log.warning("a trial's lease was lost; another worker has it", trial_id=trial_id)
            self.snapshot.forget(trial_id)
            if trial_id in self.running:
                self._leave(self.running[trial_id])

    def _hand_back(self) -> None:
        held = self._held()
        self.snapshot.changes.releases += list(held)
        self._record(held)
        if held:
            log.info("handed trials back", trials=len(held))

    # --- ending

    def _closed(self) -> bool:
        """Whether no more trials are to be claimed: the study was stopped, or its hours are over."""
        if time.monotonic() - self._looked >= self.options.poll:
            self._looked = time.monotonic()
            self.study = self.studies.study(self.study.name)
        return bool(self.study.attrs.get(STOPPED)) or self._time_is_up()

    def _time_is_up(self) -> bool:
        if self.config.hours is None:
            return False
        if STARTED not in self.study.attrs:
            self.studies.claim_attr(self.study.study_id, STARTED, time.time())
            self.study = self.studies.study(self.study.name)
        return bool(time.time() > self.study.attrs[STARTED] + self.config.hours * 3600)

    def _over(self) -> bool:
        """Whether nothing is left to do, here or with others."""
        waiting = self.studies.counts(self.study.study_id)[TrialState.WAITING]
        return (not waiting or self._closed()) and not self.leases.running(self.study.study_id)
