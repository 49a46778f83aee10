"""A worker: claims trials, samples their parameters, trains them side by side, reports, prunes, refills."""

import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
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
        self.store = Store(database, options.lease)
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
        self.running: dict[int, RunningTrial] = {}
        """By trial id."""
        self._stale = self.learns
        """Whether others may have done something since the snapshot was read that this study looks at."""
        self._read_again = -math.inf
        """When to read it again at the earliest."""
        self._ended: dict[int, int] = {}
        """Attempts by trial id: their ends are not recorded yet, so that they still count as held."""
        self._inherited = False
        """Whether a trial of an earlier attempt has ended, whose worker may have left a checkpoint."""
        self._seconds = math.inf
        """What the last epoch took."""
        self._again = -math.inf
        """When to ask for trials again, after there was none to claim."""
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
                if self.running:
                    self._settle(self._train_epoch())
                    if self.groups.due():
                        self._save()
                elif self._over():
                    return
                elif not claimed:
                    self.stop.wait(self.options.poll)
                    self._stale = self.learns
            self._save()
            self._give_back(list(self.running.values()))

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
        alone = any(trial.claim.alone for trial in self.running.values())
        if alone or time.monotonic() < self._again or self.ending.closed():
            return 0
        return max(1, min(self.capacity // self.config.folds, self.share)) - len(self.running)

    def _refill(self) -> bool:
        """Claim trials and begin with them; whether there were any, for all may have ended untrained."""
        room = self._room()
        if room <= 0:
            return False
        in_flight = default_in_flight(self.config) + len(self._ended)  # which still count as running
        claims = self.store.claim(self.study.study_id, self.name, self._held(), room, in_flight)
        if not claims:
            # With jitter, or workers that start together ask together for ever.
            self._again = time.monotonic() + self.options.poll * random.uniform(0.5, 1.5)
            return False
        held = self._held()
        if any(claim.trial_id in held for claim in claims):
            self._record()  # lost while this process was stopped, and its own again: it lets go of them first
        if any(claim.attempt > 1 for claim in claims):
            self._stale, self._read_again = True, -math.inf  # what the attempts before recorded
        self._read()
        for claim in claims:
            self._start(claim)
        self._record_unless_brief()
        return True

    def _start(self, claim: Claim) -> None:
        """Sample a trial's parameters and begin to train it."""
        frozen = self.snapshot.adopt(claim)
        trial = RunningTrial(claim, frozen, self.config.settings(self.advice.params(claim)))
        trial.decided = max(frozen.intermediate_values, default=0)
        self.running[claim.trial_id] = trial
        if self.config.constraints is None or self._feasible(trial):
            self._place(trial, self.trainer.shape_key(trial.settings))

    def _feasible(self, trial: RunningTrial) -> bool:
        """Whether its network is within the constraints; if not, the trial ends untrained, as pruned."""
        try:
            excess, violation = self.trainer.excess(trial.settings)
        except TrialError as error:
            self._fail(trial, str(error))
            return False
        self.snapshot.set_trial_system_attr(trial.claim.trial_id, CONSTRAINTS, excess)
        if violation:
            self.snapshot.set_trial_user_attr(trial.claim.trial_id, INFEASIBLE, violation)
            self._finish(trial, TrialState.PRUNED, None)
        return not violation

    def _place(self, trial: RunningTrial, key: str) -> None:
        """Have the group called `key` train a trial; one that cannot be trained fails."""
        try:
            self.groups.place(trial, key)
        except TrialError as error:
            self._fail(trial, str(error))
        except (RuntimeError, MemoryError) as error:
            if not self.trainer.out_of_memory(error):
                raise
            self._crowded_out(trial)

    def _crowded_out(self, trial: RunningTrial) -> None:
        """Memory ran out for one more trial: it waits again, unless it is alone here."""
        if len(self.running) == 1:
            self._fail(trial, "memory ran out for this trial alone")
            return
        self.capacity = max(1, len(self.running) - 1) * self.config.folds
        log.warning("memory ran out; going on with fewer lanes", lanes=self.capacity)
        self._give_back([trial])

    def _held(self) -> dict[int, int]:
        return self._ended | {trial_id: trial.claim.attempt for trial_id, trial in self.running.items()}

    def _read(self) -> None:
        """Read what others did, at most once an epoch."""
        if self._stale and time.monotonic() >= self._read_again:
            self.snapshot.refresh({trial.claim.number for trial in self.running.values()})
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
        trials = [trial for trial in trials if self._holds(trial)]
        if self.trainer.out_of_memory(failure.error) and len(self.running) > 1:
            self._halve(trials)
            return
        if len(trials) == 1:
            self.snapshot.set_trial_user_attr(trials[0].claim.trial_id, "traceback", failure.traceback)
            self._fail(trials[0], failure.reason)
            return
        log.warning(
            "a fused epoch raised; its trials go on one by one", trials=len(trials), reason=failure.reason
        )
        for trial in trials:
            self._place_again(trial, f"trial {trial.claim.number}")

    def _place_again(self, trial: RunningTrial, key: str) -> None:
        if self._holds(trial):
            trial.decided = max(trial.decided, *trial.values, 0)
            self._place(trial, key)

    def _halve(self, trials: list[RunningTrial]) -> None:
        """Memory ran out: go on with half the lanes, and give the other trials back to the study."""
        if not trials:
            return
        self.capacity = max(self.config.folds, self.capacity // 2)
        log.warning("memory ran out; going on with half the lanes", lanes=self.capacity)
        key, half = trials[0].group, len(trials) // 2
        self._give_back(trials[half:])
        for trial in trials[:half]:
            self._place_again(trial, key)

    def _holds(self, trial: RunningTrial) -> bool:
        """Whether a trial is still this worker's: its lease may be lost while others are given back."""
        return self.running.get(trial.claim.trial_id) is trial

    # --- reporting and ending

    def _settle(self, epochs: Mapping[int, Epoch]) -> None:
        """Record all epochs in one transaction; only then decide what to prune."""
        for trial_id, epoch in epochs.items():
            if trial_id in self.running:  # it may have been lost while another group's trials were given back
                self._note(self.running[trial_id], epoch)
        self._record()
        self._stale = self.learns
        if self.learns and self.running:
            self._read()
            for trial_id in [trial_id for trial_id in epochs if trial_id in self.running]:
                self._prune(self.running[trial_id])
            self._record_unless_brief()

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
        if self.advice.prunes(trial):
            self._finish(trial, TrialState.PRUNED, trial.values[max(trial.values)])

    def _fail(self, trial: RunningTrial, reason: str) -> None:
        self.snapshot.set_trial_user_attr(trial.claim.trial_id, "failure", reason)
        log.warning("a trial failed", trial=trial.claim.number, reason=reason)
        self._finish(trial, TrialState.FAIL, None)

    def _finish(self, trial: RunningTrial, state: TrialState, value: float | None) -> None:
        for key, attr in trial.summary(self.name, self.config.folds).items():
            self.snapshot.set_trial_user_attr(trial.claim.trial_id, key, attr)
        self.snapshot.finish(trial.claim.trial_id, state, value)
        self._ended[trial.claim.trial_id] = trial.claim.attempt
        self._inherited = self._inherited or trial.claim.attempt > 1
        self._again = -math.inf  # there is room for another one in flight
        self._leave(trial)

    def _leave(self, trial: RunningTrial) -> None:
        """Train a trial no longer."""
        del self.running[trial.claim.trial_id]
        self.groups.leave(trial)

    def _lose(self, trial_id: int) -> None:
        """Let go of a trial that is no longer this worker's; its checkpoint is for whoever has it now."""
        log.warning("a trial's lease was lost; another worker has it", trial_id=trial_id)
        self.snapshot.forget(trial_id)
        if trial_id in self.running:
            self._leave(self.running[trial_id])

    def _save(self) -> None:
        """Checkpoint; a trial that has ended is no longer in it, so that its end is recorded first."""
        if self._ended:
            self._record()
        self.groups.save()

    def _record_unless_brief(self) -> None:
        """Record what the next epoch's values will not take along soon, if it lasts as long as the last."""
        if self.snapshot.changes and (self._seconds > BRIEF or not self.running):
            self._record()

    def _record(self) -> None:
        """Record what was written to the snapshot, and let go of trials whose lease was lost."""
        lost = self.store.record(self.name, self._held(), self.snapshot.take_changes())
        for trial_id in lost:
            self._lose(trial_id)
        self._ended.clear()
        if lost:
            self.groups.leave_checkpoints()
        else:
            self.groups.discard()  # not before it is recorded: until then another worker may need them
            self._sweep()

    def _sweep(self) -> None:
        if self._inherited and self.checkpoints:
            self.checkpoints.sweep(partial(self.ending.studies.finished, self.study.study_id))
        self._inherited = False

    def _give_back(self, trials: Sequence[RunningTrial]) -> None:
        """Let trials wait again, for any worker."""
        if not trials:
            return
        self.snapshot.changes.releases += [trial.claim.trial_id for trial in trials]
        self._record()
        for trial in trials:
            self.snapshot.forget(trial.claim.trial_id)
            if trial.claim.trial_id in self.running:
                self._leave(trial)
        self.groups.leave_checkpoints()
        log.info("handed trials back", trials=len(trials))
