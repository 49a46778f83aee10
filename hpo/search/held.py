"""The trials that a worker holds: what became of them, and that it is recorded under their leases."""

from collections.abc import Callable, Collection, Sequence

import structlog
from optuna.trial import TrialState

from hpo.config import StudyConfig, TrialSettings
from hpo.search.groups import Groups
from hpo.search.records import Claim
from hpo.search.running import RunningTrial
from hpo.search.snapshot import Snapshot
from hpo.search.store import Store
from hpo.search.training import Epoch, Saves

log = structlog.get_logger()


class Held:
    """Trials under a worker's leases.

    What happens to them is in the snapshot at once, and in the database after `record`: until then a trial
    that has ended still counts as held, and one whose lease was lost as running.
    """

    def __init__(
        self,
        worker: str,
        config: StudyConfig,
        store: Store,
        snapshot: Snapshot,
        groups: Groups,
        checkpoints: Saves | None,
        which_finished: Callable[[Collection[int]], Collection[int]],
    ) -> None:
        """worker: its name. which_finished: answers which of some trials' numbers have finished."""
        self.worker = worker
        self.config = config
        self.store = store
        self.snapshot = snapshot
        self.groups = groups
        self.checkpoints = checkpoints
        self._which_finished = which_finished
        self.running: dict[int, RunningTrial] = {}
        """By trial id."""
        self.ends = 0
        """How many trials have ended here so far."""
        self._ended: dict[int, int] = {}
        """Attempts by trial id: their ends are not recorded yet."""
        self._inherited = False
        """Whether a trial of an earlier attempt has ended, whose worker may have left a checkpoint."""

    def attempts(self) -> dict[int, int]:
        """Under which each trial is held, by trial id."""
        return self._ended | {trial_id: trial.claim.attempt for trial_id, trial in self.running.items()}

    def holds(self, trial: RunningTrial) -> bool:
        """Whether a trial still trains here: its lease may be lost while others are given back."""
        return self.running.get(trial.claim.trial_id) is trial

    def claim(self, count: int, in_flight: int) -> list[Claim]:
        """Up to `count` trials more, as long as fewer than `in_flight` run in the whole study."""
        in_flight += len(self._ended)  # which still count as running
        study = self.snapshot.record.study_id
        claims = self.store.claim(study, self.worker, self.attempts(), count, in_flight)
        held = self.attempts()
        if any(claim.trial_id in held for claim in claims):
            self.record()  # lost while this process was stopped, and its own again: it lets go of them first
        return claims

    def begin(self, claim: Claim, settings: Callable[[], TrialSettings]) -> RunningTrial:
        """Hold a claimed trial. settings: samples its parameters, once the snapshot shows it."""
        frozen = self.snapshot.adopt(claim)
        trial = RunningTrial(claim, frozen, settings())
        trial.decided = max(frozen.intermediate_values, default=0)
        self.running[claim.trial_id] = trial
        return trial

    def note(self, trial: RunningTrial, epoch: Epoch) -> None:
        """One more epoch, which may be its last."""
        if epoch.failure:
            self.fail(trial, epoch.failure)
            return
        trial.values[epoch.number] = epoch.value
        self.snapshot.set_trial_intermediate_value(trial.claim.trial_id, epoch.number, epoch.value)
        trial.last = epoch
        if epoch.number >= self.config.training.epochs:
            self.finish(trial, TrialState.COMPLETE, self.config.chosen(trial.values))

    def fail(self, trial: RunningTrial, reason: str) -> None:
        """End a trial that cannot go on."""
        self.snapshot.set_trial_user_attr(trial.claim.trial_id, "failure", reason)
        log.warning("a trial failed", trial=trial.claim.number, reason=reason)
        self.finish(trial, TrialState.FAIL, None)

    def finish(self, trial: RunningTrial, state: TrialState, value: float | None) -> None:
        """End a trial."""
        for key, attr in trial.summary(self.worker, self.config.folds).items():
            self.snapshot.set_trial_user_attr(trial.claim.trial_id, key, attr)
        self.snapshot.finish(trial.claim.trial_id, state, value)
        self._ended[trial.claim.trial_id] = trial.claim.attempt
        self._inherited = self._inherited or trial.claim.attempt > 1
        self.ends += 1
        self._leave(trial)

    def give_back(self, trials: Sequence[RunningTrial]) -> None:
        """Let trials wait again, for any worker."""
        if not trials:
            return
        self.snapshot.changes.releases += [trial.claim.trial_id for trial in trials]
        self.record()
        for trial in trials:
            self.snapshot.forget(trial.claim.trial_id)
            if trial.claim.trial_id in self.running:
                self._leave(trial)
        self.groups.leave_checkpoints()
        log.info("handed trials back", trials=len(trials))

    def save(self) -> None:
        """Checkpoint; a trial that has ended is no longer in it, so that its end is recorded first."""
        if self._ended:
            self.record()
        self.groups.save()

    def record(self) -> None:
        """Record what was written to the snapshot, and let go of trials whose lease was lost."""
        lost = self.store.record(self.worker, self.attempts(), self.snapshot.take_changes())
        for trial_id in lost:
            self._lose(trial_id)
        self._ended.clear()
        if lost:
            self.groups.leave_checkpoints()
        else:
            self.groups.discard()  # not before it is recorded: until then another worker may need them
            self._sweep()

    def _lose(self, trial_id: int) -> None:
        """Let go of a trial that is no longer this worker's; its checkpoint is for whoever has it now."""
        log.warning("a trial's lease was lost; another worker has it", trial_id=trial_id)
        self.snapshot.forget(trial_id)
        if trial_id in self.running:
            self._leave(self.running[trial_id])

    def _leave(self, trial: RunningTrial) -> None:
        """Train a trial no longer."""
        del self.running[trial.claim.trial_id]
        self.groups.leave(trial)

    def _sweep(self) -> None:
        if self._inherited and self.checkpoints:
            self.checkpoints.sweep(self._which_finished)
        self._inherited = False
