"""A worker's trials in training: in groups by shape key, with their checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hpo.errors import Interrupted
from hpo.search.running import Failure, RunningTrial
from hpo.search.training import Epoch, Group, Saves, Trains


@dataclass
class _Training:
    group: Group
    trials: dict[int, RunningTrial] = field(default_factory=dict)
    """By number."""


@dataclass
class Trained:
    """What one epoch of every group came to."""

    epochs: dict[int, Epoch] = field(default_factory=dict)
    """By trial id."""
    failures: list[tuple[list[RunningTrial], Failure]] = field(default_factory=list)
    """Groups that raised, and are gone: their trials, and what was raised."""


class Groups:
    """Trains trials and saves their states; which trials, and what becomes of them, is the worker's."""

    def __init__(self, trainer: Trains, owner: str, checkpoints: Saves | None, save_every: float) -> None:
        self.trainer = trainer
        self.owner = owner
        self.checkpoints = checkpoints
        self.save_every = save_every
        self._groups: dict[str, _Training] = {}
        """By shape key; a trial that is retried alone has one of its own."""
        self._emptied: set[str] = set()
        """Keys of groups whose last trial has finished, which is not recorded yet."""
        self._left = 0
        """How often checkpoints were left to other workers."""
        self._began = self._saved = time.monotonic()
        """When the last epoch began, and when the last checkpoint was taken."""

    def place(self, trial: RunningTrial, key: str) -> None:
        """Have the group called `key` train a trial, from its newest checkpoint where there is one.

        Raises:
            TrialError: it cannot be trained.
        """
        trial.group = ""
        into = self._groups.get(key) or _Training(self.trainer.group(trial.settings))
        number = trial.claim.number
        saved = self.checkpoints.load(number, trial.decided) if self.checkpoints and trial.decided else None
        epoch, state = saved or (0, None)
        into.group.add(number, trial.settings, state)
        trial.values = {step: v for step, v in trial.frozen.intermediate_values.items() if step <= epoch}
        into.trials[number] = trial
        self._groups[key] = into
        trial.group = key

    def leave(self, trial: RunningTrial) -> None:
        """Train a trial no longer."""
        of = self._groups.get(trial.group)
        if of is None:  # it never came into one, or that one is of no more use
            return
        of.group.drop([trial.claim.number])
        del of.trials[trial.claim.number]
        if not of.trials:
            del self._groups[trial.group]
            self._emptied.add(trial.group)

    def train_epoch(self, stopping: Callable[[], bool], out_of_time: Callable[[], bool]) -> Trained:
        """One epoch of each group in turn.

        Args:
            stopping: Whether to begin with no further group: those that are left stand at an epoch's end.
            out_of_time: Whether to leave an epoch in its middle; then the last checkpoint is what counts.
        """
        self._began = time.monotonic()
        trained = Trained()
        for key in list(self._groups):
            if stopping():
                break
            try:
                epochs = self._groups[key].group.train_epoch(out_of_time)
            except Interrupted:
                del self._groups[key]
            except Exception as error:  # noqa: BLE001  (the user's module may raise anything)
                trained.failures.append((list(self._groups.pop(key).trials.values()), Failure.of(error)))
            else:
                trials = self._groups[key].trials
                trained.epochs |= {trials[n].claim.trial_id: epoch for n, epoch in epochs.items()}
        return trained

    def due(self) -> bool:
        """Whether a checkpoint taken after the next epoch would come later than is allowed."""
        now = time.monotonic()
        return now - self._saved + (now - self._began) > self.save_every

    def save(self) -> None:
        """Checkpoint every group; what was reported and what has ended must be recorded already."""
        self._saved = time.monotonic()
        if not self.checkpoints:
            return
        for key, of in self._groups.items():
            self.checkpoints.save(self._saved_as(key), {n: of.group.state(n) for n in of.trials})

    def discard(self) -> None:
        """Let the checkpoints of emptied groups go."""
        if self.checkpoints:
            for key in self._emptied - self._groups.keys():
                self.checkpoints.discard(self._saved_as(key))
        self._emptied.clear()

    def leave_checkpoints(self) -> None:
        """Leave what was saved so far to other workers, who go on with some of its trials; save elsewhere."""
        self._emptied.clear()
        self._left += 1

    def _saved_as(self, key: str) -> str:
        return f"{self.owner}.{self._left} {key}"
