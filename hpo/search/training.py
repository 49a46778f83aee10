"""What a worker needs of whatever trains its trials. `hpo.search.trainer` is the real thing."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hpo.config import TrialSettings


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial, meaned over its folds."""

    number: int
    """Counted from 1."""
    value: float
    """The study's metric on the validation part."""
    train_loss: float
    spread: float = 0.0
    """Standard deviation of the value over the folds."""

    @property
    def failure(self) -> str | None:
        """Why the trial cannot go on, if so."""
        if not math.isfinite(self.train_loss):
            return f"epoch {self.number}: the training loss is {self.train_loss}"
        if not math.isfinite(self.value):
            return f"epoch {self.number}: the validation metric is {self.value}"
        return None


@dataclass(frozen=True)
class Measured:
    """How many lanes pay on a worker's machine, and how much."""

    lanes: int
    """Of all shapes together."""
    fused: int
    """Of one shape, as a single program."""
    speed_up: float
    """Times as many steps a second as these make one by one."""


class Saves(Protocol):
    """Keeps the states of trials for other workers."""

    def save(self, group: str, states: Mapping[int, Any]) -> bool:
        """Keep the states of a group's trials, by number, instead of those before."""

    def load(self, number: int, most: int) -> tuple[int, Any] | None:
        """The epochs and the newest state of a trial with at most `most` epochs; None when there is none."""

    def discard(self, group: str) -> None:
        """Forget a group."""

    def sweep(self, finished: Callable[[Collection[int]], Collection[int]]) -> None:
        """Forget what others left of trials that have all finished: `finished` answers which of some have."""

    def clear(self) -> None:
        """Forget everything: the study is searched."""


class Group(Protocol):
    """Trials of one shape key that train together; they are named by their numbers."""

    def __len__(self) -> int: ...

    def add(self, number: int, settings: TrialSettings, state: Any = None) -> None:
        """Take in a trial, from `state` where it is given.

        Raises:
            TrialError: it cannot be trained.
        """

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[int, Epoch]:
        """Every trial goes on by one epoch.

        Raises:
            Interrupted: `stop` said so; the group's trials are in the middle of an epoch, of no more use.
        """

    def drop(self, numbers: Collection[int]) -> None:
        """Let trials go."""

    def state(self, number: int) -> Any:
        """All that a trial needs to go on in another group."""


class Trains(Protocol):
    """Trains the trials of one study."""

    def shape_key(self, settings: TrialSettings) -> str:
        """Equal for trials that can share a group."""

    def group(self, settings: TrialSettings) -> Group:
        """An empty group for trials of the shape key of `settings`."""

    def excess(self, settings: TrialSettings) -> tuple[list[float], str]:
        """How far the study's constraints are violated, as Optuna has it, and how in words; empty if not.

        Raises:
            TrialError: the trial cannot be trained.
        """

    def best_lanes(self, most: int) -> Measured:
        """How many lanes to train side by side, at most so many, and how much that gains."""

    def out_of_memory(self, error: Exception) -> bool:
        """Whether an error of a group says that its trials do not fit into memory together."""
