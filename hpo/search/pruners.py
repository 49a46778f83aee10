"""Pruners: from a configuration to Optuna's, and a median rule of our own that counts once for many lanes."""

import bisect
import math
from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo import methods
from hpo.config import StudyConfig
from hpo.search.samplers import experimental


def make_pruner(config: StudyConfig) -> BasePruner:
    """The study's pruner; its resource is epochs, counted from 1."""
    pruner, epochs = config.pruner, config.training.epochs
    if isinstance(pruner, methods.Median):
        return Median(pruner.startup_trials, pruner.min_epochs)
    if isinstance(pruner, methods.Asha):
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=pruner.min_epochs, reduction_factor=pruner.reduction_factor
        )
    if isinstance(pruner, methods.Hyperband):
        return optuna.pruners.HyperbandPruner(
            min_resource=pruner.min_epochs, max_resource=epochs, reduction_factor=pruner.reduction_factor
        )
    if isinstance(pruner, methods.Patient):
        with experimental():
            return optuna.pruners.PatientPruner(None, patience=pruner.patience, min_delta=pruner.min_delta)
    return optuna.pruners.NopPruner()


class Median(BasePruner):
    """Decides as `optuna.pruners.MedianPruner` does, looking at each completed trial once.

    Optuna's collects the values of all completed trials at each decision: at 500 of them 0.2 ms, which was a
    fifth of what a trial of 30 epochs cost besides its training.
    """

    def __init__(self, startup_trials: int, min_epochs: int) -> None:
        self.startup_trials = startup_trials
        self.min_epochs = min_epochs
        self._state = (0, -1)
        """How many trials were completed at the last decision, and the last one's number."""
        self._seen: set[int] = set()
        """Their numbers."""
        self._values: dict[int, list[float]] = {}
        """Theirs in order, by epoch."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial's best value so far is worse than the median at its last epoch."""
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        epoch = trial.last_step
        if epoch is None or epoch < self.min_epochs or len(completed) < max(1, self.startup_trials):
            return False
        self._look_at(completed)
        median, values = self._median(epoch), trial.intermediate_values.values()
        if study.direction == StudyDirection.MAXIMIZE:
            return max(values) < median
        return min(values) > median

    def _look_at(self, completed: Sequence[FrozenTrial]) -> None:
        state = (len(completed), completed[-1].number)
        if state == self._state:
            return
        self._state = state
        numbers = {trial.number for trial in completed}
        if self._seen - numbers:  # one that was lost: its end was not recorded
            self._seen, self._values = set(), {}
        several = len(numbers) - len(self._seen) > 100  # at a worker's start
        add = list.append if several else bisect.insort
        for trial in completed:
            if trial.number not in self._seen:
                for epoch, value in trial.intermediate_values.items():
                    if not math.isnan(value):
                        add(self._values.setdefault(epoch, []), value)
        if several:
            for values in self._values.values():
                values.sort()
        self._seen = numbers

    def _median(self, epoch: int) -> float:
        """nan, which nothing is worse than, where no trial has a value."""
        values = self._values.get(epoch)
        if not values:
            return math.nan
        low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
        return high - (high - low) * 0.5  # rounded as `np.percentile` does
