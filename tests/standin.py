"""A stand-in for training: no network, and values that depend on a trial's number and epoch alone."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from checker import Log
from crew import Plan

from hpo.config import TrialSettings
from hpo.errors import Interrupted
from hpo.search.training import Epoch, Measured

LATE = 1000.0
"""Added to the values of an epoch in which the worker was stopped: they must never be stored."""


def value(number: int, epoch: int) -> float:
    """What the stand-in training comes to."""
    return math.sin(number + 1.0) * epoch / (epoch + 3.0) + 0.01 * epoch


class StandIn:
    """Trains no network; a trial's values depend on its number alone."""

    def __init__(self, plan: Plan, log: Log) -> None:
        self.plan = plan
        self.log = log
        self.stopped = False
        """Whether this process was stopped, and went on, since the epoch began."""

    def shape_key(self, settings: TrialSettings) -> str:
        return str(settings.hyperparameters.batch_size)

    def best_lanes(self, most: int) -> Measured:
        return Measured(64, 64, 1.0)

    def out_of_memory(self, error: BaseException) -> bool:
        return False

    def group(self, settings: TrialSettings) -> "StandInGroup":
        return StandInGroup(self)


class StandInGroup:
    """Trials and their epochs."""

    def __init__(self, training: StandIn) -> None:
        self.training = training
        self.epochs: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.epochs)

    def add(self, number: int, settings: TrialSettings, state: Any = None) -> None:
        assert number not in self.epochs
        self.epochs[number] = state or 0
        self.training.log.add("start", number, epoch=state or 0)

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[int, Epoch]:
        self.training.stopped = False
        time.sleep(self.training.plan.epoch)
        if stop():
            raise Interrupted("told to stop")
        for number, epoch in self.epochs.items():
            if number in self.training.plan.poison and epoch == 1:
                os._exit(99)
            if self.training.plan.breaks and number % 40 == 27 and epoch == 2:
                raise RuntimeError("this trial breaks in its third epoch")
        self.epochs = {number: epoch + 1 for number, epoch in self.epochs.items()}
        return {number: self._epoch(number, epoch) for number, epoch in self.epochs.items()}

    def _epoch(self, number: int, epoch: int) -> Epoch:
        late = LATE if self.training.stopped else 0.0
        bad = self.training.plan.breaks and number % 40 == 13 and epoch == 5
        return Epoch(epoch, math.nan if bad else value(number, epoch) + late, train_loss=1.0)

    def drop(self, numbers: Collection[int]) -> None:
        for number in numbers:
            del self.epochs[number]

    def state(self, number: int) -> int:
        return self.epochs[number]


class StandInCheckpoints:
    """A JSON file for each group."""

    def __init__(self, folder: Path, end: Callable[[str], None]) -> None:
        self.folder = folder
        self.end = end
        folder.mkdir(exist_ok=True)

    def save(self, group: str, states: Mapping[int, int]) -> bool:
        beside = self.folder / f"{group}.new"
        beside.write_text(json.dumps(states))
        beside.rename(self.folder / f"{group}.json")
        self.end("between checkpoint and report")
        return True

    def load(self, number: int, most: int) -> tuple[int, int] | None:
        found = []
        for file in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # discarded meanwhile
                found.append(json.loads(file.read_text()).get(str(number), 0))
        epoch = max((epoch for epoch in found if epoch <= most), default=0)
        return (epoch, epoch) if epoch else None

    def discard(self, group: str) -> None:
        (self.folder / f"{group}.json").unlink(missing_ok=True)

    def sweep(self, finished: Callable[[Collection[int]], Collection[int]]) -> None:
        for file in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # discarded meanwhile
                numbers = {int(number) for number in json.loads(file.read_text())}
                if numbers <= set(finished(numbers)):
                    file.unlink()

    def clear(self) -> None:
        for file in self.folder.glob("*.json"):
            file.unlink(missing_ok=True)
