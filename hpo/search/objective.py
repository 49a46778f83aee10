"""A study's trials in this process: what they are trained with, and an ordinary Optuna objective."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
import structlog
from optuna.trial import Trial

from hpo.config import StudyConfig, TrialSettings
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.errors import TrialError
from hpo.space import suggest
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import EpochResult, Lane, LaneKey

log = structlog.get_logger()


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial: its lanes' results, one for each fold."""

    number: int
    """Counted from 1."""
    value: float
    """The metric, meaned over the folds."""
    spread: float
    """Its standard deviation over the folds; 0 for one."""
    train_loss: float

    @property
    def failure(self) -> str | None:
        """Why the trial cannot go on, if so."""
        if not math.isfinite(self.train_loss):
            return f"epoch {self.number}: the training loss is {self.train_loss}"
        if not math.isfinite(self.value):
            return f"epoch {self.number}: the validation metric is {self.value}"
        return None


class Trainer:
    """What the trials of one study are trained with: its architecture, and its data on the device."""

    def __init__(self, config: StudyConfig, prepared: PreparedData, device: str = "cpu") -> None:
        self.config = config
        self.architecture = Architecture(config, prepared.input_shape, prepared.outputs)
        self.data = DeviceData(prepared.folds, prepared.task, prepared.outputs, device=device)

    def cohort(self, settings: TrialSettings) -> Cohort:
        """An empty cohort for trials of the same shape key as `settings`."""
        return Cohort(self.architecture, self.data, self.config.metric, settings, self.config.training.epochs)

    def lanes(self, number: int, settings: TrialSettings) -> list[Lane]:
        """The lanes of trial `number`: one for each fold."""
        seed = self.config.training.seed
        return [Lane(LaneKey(number, fold, seed), settings) for fold in range(self.config.folds)]

    def epoch(self, lanes: Sequence[Lane], results: Mapping[LaneKey, EpochResult]) -> Epoch:
        """One trial's epoch from the results of its lanes."""
        own = [results[lane.key] for lane in lanes]
        values = [result.value for result in own]
        finite = all(map(math.isfinite, values))
        return Epoch(
            number=own[0].epoch,
            value=statistics.fmean(values),
            spread=statistics.stdev(values) if finite and len(values) > 1 else 0.0,
            train_loss=statistics.fmean(result.train_loss for result in own),
        )

    def chosen(self, values: Mapping[int, float]) -> float:
        """A trial's value from its epochs' values: the last one's, or with `select: best_epoch` the best."""
        if self.config.training.select == "last":
            return values[max(values)]
        return (max if self.config.direction == "maximize" else min)(values.values())


class Objective:
    """An ordinary pruning-aware Optuna objective: `study.optimize(Objective(config), n_trials=10)`.

    It reports each epoch (steps count from 1), raises `TrialPruned` when the study's pruner says so, and
    fails a trial whose loss is not finite: it answers nan, and the reason is the user attribute `failure`.
    """

    def __init__(
        self, config: StudyConfig, prepared: PreparedData | None = None, device: str = "cpu"
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
            return self._train(trial, settings)
        except TrialError as error:
            trial.set_user_attr("failure", str(error))
            log.warning("a trial failed", trial=trial.number, reason=str(error))
            return math.nan

    def _train(self, trial: Trial, settings: TrialSettings) -> float:
        cohort = self.trainer.cohort(settings)
        lanes = self.trainer.lanes(trial.number, settings)
        cohort.add(lanes)
        values: dict[int, float] = {}
        for _ in range(self.config.training.epochs):
            epoch = self.trainer.epoch(lanes, cohort.train_epoch())
            if epoch.failure:
                raise TrialError(epoch.failure)
            values[epoch.number] = epoch.value
            trial.report(epoch.value, epoch.number)
            if trial.should_prune():
                raise optuna.TrialPruned(f"after epoch {epoch.number}")
        return self.trainer.chosen(values)
