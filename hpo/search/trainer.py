"""Training a study's trials in this process: each fold of a trial is a lane of a cohort."""

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence

from hpo.config import StudyConfig, TrialSettings
from hpo.data.prepared import PreparedData
from hpo.errors import TrialError
from hpo.search.samplers import learns, middle
from hpo.search.training import Epoch, Measured
from hpo.space import Range
from hpo.training.architecture import Architecture
from hpo.training.capacity import Capacity, best_lanes
from hpo.training.cohort import Cohort
from hpo.training.cost import Limits
from hpo.training.device_data import DeviceData
from hpo.training.lane import EpochResult, Lane, LaneKey, LaneState
from hpo.training.memory import out_of_memory
from hpo.training.shapes import number_of_shapes, shape_key

MORE = 1.3
"""Times as many trials as pay may train at once where that spares rounds (`next_round`)."""


class Trainer:
    """A study's architecture, and its data on the device."""

    def __init__(
        self, config: StudyConfig, prepared: PreparedData, device: str = "auto", trials: float = 0
    ) -> None:
        """trials: that this process expects to train side by side, see `Architecture`."""
        self.config = config
        self.architecture = Architecture(config, prepared.input_shape, prepared.outputs, trials)
        limits = config.constraints
        self.limits = None if limits is None else Limits(limits, self.architecture)
        self.data = DeviceData(prepared.folds, prepared.task, prepared.outputs, device=device)

    def shape_key(self, settings: TrialSettings) -> str:
        """Equal for trials that can share a group."""
        return shape_key(settings)

    def excess(self, settings: TrialSettings) -> tuple[list[float], str]:
        """How far the study's constraints are violated, as Optuna has it, and how in words; empty if not.

        Raises:
            TrialError: the network cannot be built.
        """
        if self.limits is None:
            return [], ""
        return self.limits.excess(settings), self.limits.violation(settings)

    def group(self, settings: TrialSettings) -> "TrialCohort":
        """An empty group for trials of the shape key of `settings`."""
        epochs = self.config.training.epochs
        cohort = Cohort(self.architecture, self.data, self.config.metric, settings, epochs)
        return TrialCohort(cohort, self.config)

    def best_lanes(self, most: int) -> Measured:
        """How many lanes to train side by side, at most so many: measured on the middle of the space.

        At the smallest batch: lanes gain most there, and an epoch has most steps. The largest one must fit.

        Raises:
            TrialError: a network of the middle of the space cannot be trained.
        """
        one_shape = self._of_one_shape(most)
        # More shapes than 4 would only wait for each other; and so do all where lanes gain nothing.
        shapes = int(min(4, number_of_shapes(self.config))) if one_shape.lanes > 1 else 1
        folds = self.config.folds
        trials, fit = max(1, most // folds), max(1, one_shape.fit // folds)
        at_once = max(1, min(trials, fit, one_shape.lanes * shapes // folds))
        if not learns(self.config):
            at_once = min(trials, fit, int(MORE * at_once))
        return Measured(at_once * folds, one_shape.lanes, round(one_shape.speed_up, 2))

    def _of_one_shape(self, most: int) -> Capacity:
        small, large = (
            self.config.settings(middle(self.config.search, {"batch_size": size}))
            for size in self._batch_sizes()
        )
        try:
            return best_lanes(self._cohort, small, most, None if small == large else large)
        except TrialError:  # one row may be too few
            return best_lanes(self._cohort, self.config.settings(middle(self.config.search)), most)

    def _batch_sizes(self) -> tuple[int, int]:
        """The smallest and the largest."""
        searched = self.config.search.get("batch_size")
        if isinstance(searched, Range):
            return int(searched.low), int(searched.high)
        choices = [self.config.training.batch_size] if searched is None else map(int, searched.choices)
        sizes = sorted(choices)
        return sizes[0], sizes[-1]

    def _cohort(self, settings: TrialSettings) -> Cohort:
        return self.group(settings).cohort

    def out_of_memory(self, error: Exception) -> bool:
        """Whether an error of a group says that its trials do not fit into memory together."""
        return out_of_memory(error)


class TrialCohort:
    """Trials that train as one cohort, their folds in lockstep."""

    def __init__(self, cohort: Cohort, config: StudyConfig) -> None:
        self.cohort = cohort
        self.config = config
        self.lanes: dict[int, list[LaneKey]] = {}

    def __len__(self) -> int:
        return len(self.lanes)

    def add(
        self, number: int, settings: TrialSettings, state: Mapping[LaneKey, LaneState] | None = None
    ) -> None:
        """Take in a trial, from `state` where it is given.

        Raises:
            TrialError: it cannot be trained.
        """
        keys = [LaneKey(number, fold, self.config.training.seed) for fold in range(self.config.folds)]
        self.cohort.add([Lane(key, settings) for key in keys], state)
        self.lanes[number] = keys

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[int, Epoch]:
        """Every trial goes on by one epoch.

        Raises:
            Interrupted: `stop` said so; the group's trials are of no more use.
        """
        results = self.cohort.train_epoch(stop)
        return {number: _mean([results[key] for key in keys]) for number, keys in self.lanes.items()}

    def drop(self, numbers: Collection[int]) -> None:
        """Let trials go."""
        self.cohort.drop([key for number in numbers for key in self.lanes.pop(number)])

    def state(self, number: int) -> dict[LaneKey, LaneState]:
        """All that a trial needs to go on in another group."""
        return {key: self.cohort.state(key) for key in self.lanes[number]}


def _mean(results: Sequence[EpochResult]) -> Epoch:
    values = [result.value for result in results]
    several = len(values) > 1 and all(map(math.isfinite, values))
    return Epoch(
        number=results[0].epoch,
        value=statistics.fmean(values),
        train_loss=statistics.fmean(result.train_loss for result in results),
        spread=statistics.stdev(values) if several else 0.0,
    )
