"""A study as an ordinary Optuna objective, for notebooks and scripts."""

import math

import optuna
import structlog
from optuna.trial import Trial

from hpo.config import StudyConfig, TrialSettings
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.errors import TrialError
from hpo.search.status import INFEASIBLE
from hpo.search.trainer import Trainer
from hpo.space import suggest

log = structlog.get_logger()


class Objective:
    """A pruning-aware Optuna objective: `study.optimize(Objective(config), n_trials=10)`.

    It reports each epoch (steps count from 1), raises `TrialPruned` when the study's pruner says so, and
    fails a trial whose loss is not finite: it answers nan, and the reason is the user attribute `failure`.
    """

    def __init__(
        self, config: StudyConfig, prepared: PreparedData | None = None, device: str = "auto"
    ) -> None:
        """Prepares the data unless they are given.

        Raises:
            DataError: the data are missing or unusable.
        """
        self.config = config
        self.trainer = Trainer(config, prepared or prepare(config), device)

    def __call__(self, trial: Trial) -> float:
        """Train one trial; its value is the study's metric on the validation part."""
        settings = self.config.settings(suggest(trial, self.config.search))
        try:
            self._check_constraints(trial, settings)
            return self._train(trial, settings)
        except TrialError as error:
            trial.set_user_attr("failure", str(error))
            log.warning("a trial failed", trial=trial.number, reason=str(error))
            return math.nan

    def _check_constraints(self, trial: Trial, settings: TrialSettings) -> None:
        """End a trial whose network is beyond the study's constraints, untrained."""
        excess, violation = self.trainer.excess(settings)
        for index, by_how_much in enumerate(excess):
            trial.set_constraint(str(index), by_how_much)
        if violation:
            trial.set_user_attr(INFEASIBLE, violation)
            raise optuna.TrialPruned(violation)

    def _train(self, trial: Trial, settings: TrialSettings) -> float:
        group = self.trainer.group(settings)
        group.add(trial.number, settings)
        values: dict[int, float] = {}
        for _ in range(self.config.training.epochs):
            epoch = group.train_epoch()[trial.number]
            if epoch.failure:
                raise TrialError(epoch.failure)
            values[epoch.number] = epoch.value
            trial.report(epoch.value, epoch.number)
            if epoch.number < self.config.training.epochs and trial.should_prune():
                raise optuna.TrialPruned(f"after epoch {epoch.number}")
        return self.config.chosen(values)
