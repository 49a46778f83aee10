"""A worker: claims trials, samples their parameters, trains them side by side, reports, prunes, refills."""

import math
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import structlog
from optuna.trial import TrialState

from hpo.config import StudyConfig
from hpo.errors import TrialError
from hpo.search.advice import Advice
from hpo.search.database import CONSTRAINTS, Database
from hpo.search.ending import Ending
from hpo.search.groups import Groups
from hpo.search.held import Held
from hpo.search.history import History
from hpo.search.leases import Heartbeat, Leases
from hpo.search.records import Claim, StudyRecord
from hpo.search.running import Failure, RunningTrial, WorkerOptions, worker_name
from hpo.search.samplers import default_in_flight, learns
from hpo.search.snapshot import Snapshot
from hpo.search.status import CAPACITY, INFEASIBLE
from hpo.search.store import Store
from hpo.search.training import Epoch, Saves, Trains

log = structlog.get_logger()

BRIEF = 0.2
"""Seconds: where epochs are shorter, parameters, prunings and ends of trials that never trained are recorded
with the next values, which spares commits."""

FRESH = 0.05
"""Seconds: what others did is read again after an epoch, but not sooner than this."""

LAST_EPOCH = 5.0
"""Seconds that an epoch has to come to its end when the worker is told to stop; so nothing of it is lost."""


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
        checkpoints: Saves | None = None,
    ) -> None:
        self.study = study
        self.config = config
        self.trainer = trainer
        self.options = options
        self.stop = stop
        self.checkpoints = checkpoints
        self.name = worker_name()
        self.ending = Ending(database, study, config.hours, options.poll)
        self.share = -(-default_in_flight(config) // options.workers)
        """Trials at most that are this worker's part of those in flight."""
        self.capacity = options.lanes or 0
        """Lanes at most, 0 until they are measured; halved when memory runs out."""
        self.leases = Leases(database)
        self.snapshot = Snapshot(study, History(database, study.study_id))
        self.advice = Advice(study, config, self.snapshot)
        self.learns = learns(config)
        self.groups = Groups(trainer, self.name, checkpoints, options.save_every)
        which_finished = partial(self.ending.studies.finished, study.study_id)
        store = Store(database, options.lease)
        self.held = Held(self.name, config, store, self.snapshot, self.groups, checkpoints, which_finished)
        self._stale = self.learns
        """Whether others may have done something since the snapshot was read that this study looks at."""
        self._read_again = -math.inf
        """When to read it again at the earliest."""
        self._seconds = math.inf
        """What the last epoch took."""
        self._again = -math.inf
        """When to ask for trials again, after there was none to claim."""
        self._ends = 0
        """How many trials had ended here by then: one more, and there is room for another one in flight."""
        self._round = 0
        """How many trials were in training when some were last claimed."""
        self._told: float | None = None
        """When an epoch was first seen to go on although this worker is to stop."""

    def run(self) -> None:
        """Work until every trial of the study has finished, or `stop` is set.

        Raises:
            StorageError: the database stayed away for longer than its patience.
        """
        with Heartbeat(self.leases, self.name, self.options.lease, self.options.retries):
            self.capacity = self.capacity or self._measured()  # its thread is there before memory gets scarce
            while not self.stop.is_set():
                claimed = self._refill()
                if self.held.running:
                    self._settle(self._train_epoch())
                    if self.groups.due():
                        self.held.save()
                elif self._over():
                    return
                elif not claimed:
                    self.stop.wait(self.options.poll)
                    self._stale = self.learns
            self.held.save()
            self.held.give_back(list(self.held.running.values()))

    def _over(self) -> bool:
        """Whether nothing is left to do, here or with others; once nothing waits, checkpoints go."""
        waiting, more = self.ending.left()
        if self.checkpoints and not waiting and not more:
            self.checkpoints.clear()
        return not more

    def _measured(self) -> int:
        try:
            found = self.trainer.best_lanes(self.share * self.config.folds)
        except TrialError as error:  # other trials may train all the same
            log.warning("no lanes could be measured; training one by one", reason=str(error))
            return self.config.folds
        self.ending.studies.claim_attr(self.study.study_id, CAPACITY, asdict(found))
        return found.lanes

    # --- claiming and sampling

    def _room(self) -> int:
        """How many trials to claim."""
        alone = any(trial.claim.alone for trial in self.held.running.values())
        if alone or self._in_vain() or self.ending.closed():
            return 0
        running, most = len(self.held.running), max(1, min(self.capacity // self.config.folds, self.share))
        # One by one, or all at once, rounds would gain nothing.
        if self.learns or most in {1, self.share}:
            return most - running
        if 2 * running > self._round:
            return 0
        return max(1, self.ending.next_round(self.name, self.options.workers, most)) - running

    def _in_vain(self) -> bool:
        """Whether there was nothing to claim a moment ago, and nothing has changed."""
        return self._ends == self.held.ends and time.monotonic() < self._again

    def _refill(self) -> bool:
        """Claim trials and begin with them; whether there were any, for all may have ended untrained."""
        room = self._room()
        if room <= 0:
            return False
        claims = self.held.claim(room, default_in_flight(self.config))
        if not claims:
            # With jitter, or workers that start together ask together for ever.
            self._again = time.monotonic() + self.options.poll * random.uniform(0.5, 1.5)
            self._ends = self.held.ends
            return False
        if any(claim.attempt > 1 for claim in claims):
            self._stale, self._read_again = True, -math.inf  # what the attempts before recorded
        self._read()
        for claim in claims:
            self._start(claim)
        self._round = len(self.held.running)
        self._record_unless_brief()
        return True

    def _start(self, claim: Claim) -> None:
        """Sample a trial's parameters and begin to train it."""
        trial = self.held.begin(claim, lambda: self.config.settings(self.advice.params(claim)))
        if self.config.constraints is None or self._feasible(trial):
            self._place(trial, self.trainer.shape_key(trial.settings))

    def _feasible(self, trial: RunningTrial) -> bool:
        """Whether its network is within the constraints; if not, the trial ends untrained, as pruned."""
        try:
            excess, violation = self.trainer.excess(trial.settings)
        except TrialError as error:
            self.held.fail(trial, str(error))
            return False
        self.snapshot.set_trial_system_attr(trial.claim.trial_id, CONSTRAINTS, excess)
        if violation:
            self.snapshot.set_trial_user_attr(trial.claim.trial_id, INFEASIBLE, violation)
            self.held.finish(trial, TrialState.PRUNED, None)
        return not violation

    def _place(self, trial: RunningTrial, key: str) -> None:
        """Have the group called `key` train a trial; one that cannot be trained fails."""
        try:
            self.groups.place(trial, key)
        except TrialError as error:
            self.held.fail(trial, str(error))
        except (RuntimeError, MemoryError) as error:
            if not self.trainer.out_of_memory(error):
                raise
            self._crowded_out(trial)

    def _crowded_out(self, trial: RunningTrial) -> None:
        """Memory ran out for one more trial: it waits again, unless it is alone here."""
        if len(self.held.running) == 1:
            self.held.fail(trial, "memory ran out for this trial alone")
            return
        self.capacity = max(1, len(self.held.running) - 1) * self.config.folds
        log.warning("memory ran out; going on with fewer lanes", lanes=self.capacity)
        self.held.give_back([trial])

    def _read(self) -> None:
        """Read what others did, at most once an epoch."""
        if self._stale and time.monotonic() >= self._read_again:
            self.snapshot.refresh({trial.claim.number for trial in self.held.running.values()})
            self._stale, self._read_again = False, time.monotonic() + FRESH

    # --- training

    def _train_epoch(self) -> dict[int, Epoch]:
        """Train one epoch of each group in turn; answers by trial id. What raises, fails."""
        began = time.monotonic()
        trained = self.groups.train_epoch(self.stop.is_set, self._out_of_time)
        self._seconds = time.monotonic() - began
        for trials, failure in trained.failures:
            self._isolate(trials, failure)
        return trained.epochs

    def _out_of_time(self) -> bool:
        """Whether to leave an epoch in its middle: told to stop, it had some seconds to come to its end."""
        if not self.stop.is_set():
            return False
        self._told = self._told or time.monotonic()
        return time.monotonic() - self._told > LAST_EPOCH

    def _isolate(self, trials: list[RunningTrial], failure: Failure) -> None:
        """Fail the trial that raised; of several, start each again by itself, to tell which one it is.

        Random streams are keyed, so that the innocent ones come to the same values again.
        """
        trials = [trial for trial in trials if self.held.holds(trial)]
        if self.trainer.out_of_memory(failure.error) and len(self.held.running) > 1:
            self._halve(trials)
            return
        if len(trials) == 1:
            self.snapshot.set_trial_user_attr(trials[0].claim.trial_id, "traceback", failure.traceback)
            self.held.fail(trials[0], failure.reason)
            return
        log.warning(
            "a fused epoch raised; its trials go on one by one", trials=len(trials), reason=failure.reason
        )
        for trial in trials:
            self._place_again(trial, f"trial {trial.claim.number}")

    def _place_again(self, trial: RunningTrial, key: str) -> None:
        if self.held.holds(trial):
            trial.decided = max(trial.decided, *trial.values, 0)
            self._place(trial, key)

    def _halve(self, trials: list[RunningTrial]) -> None:
        """Memory ran out: go on with half the lanes, and give the other trials back to the study."""
        if not trials:
            return
        self.capacity = max(self.config.folds, self.capacity // 2)
        log.warning("memory ran out; going on with half the lanes", lanes=self.capacity)
        key, half = trials[0].group, len(trials) // 2
        self.held.give_back(trials[half:])
        for trial in trials[:half]:
            self._place_again(trial, key)

    # --- reporting and ending

    def _settle(self, epochs: Mapping[int, Epoch]) -> None:
        """Record all epochs in one transaction; only then decide what to prune."""
        running = self.held.running
        for trial_id, epoch in epochs.items():
            if trial_id in running:  # it may have been lost while another group's trials were given back
                self.held.note(running[trial_id], epoch)
        self.held.record()
        self._stale = self.learns
        if self.learns and running:
            self._read()
            for trial in [running[trial_id] for trial_id in epochs if trial_id in running]:
                self._prune(trial)
            self._record_unless_brief()

    def _prune(self, trial: RunningTrial) -> None:
        if self.advice.prunes(trial):
            self.held.finish(trial, TrialState.PRUNED, trial.values[max(trial.values)])

    def _record_unless_brief(self) -> None:
        """Record what the next epoch's values will not take along soon, if it lasts as long as the last."""
        if self.snapshot.changes and (self._seconds > BRIEF or not self.held.running):
            self.held.record()
