"""How a study stands: for the terminal and for scripts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.database import Database
from hpo.search.history import History
from hpo.search.records import StudyRecord
from hpo.search.studies import Studies

CONFIG = "hpo:config"
RESULT, STARTED, STOPPED = "hpo:result", "hpo:started", "hpo:stopped"
"""Attributes of a study: its result, when its first trial was claimed, whether it claims no more."""
WINDOWS, ENOUGH = (60.0, 600.0, 3600.0), 10
"""Seconds over which the pace is measured: the shortest in which so many trials ended."""


@dataclass(frozen=True)
class Best:
    """The best completed trial."""

    number: int
    params: dict[str, Any]
    value: float


@dataclass(frozen=True)
class RunningRow:
    """A running trial as last reported."""

    number: int
    epoch: int
    value: float | None
    params: dict[str, Any]


@dataclass(frozen=True)
class Status:
    """A study at one moment."""

    study: str
    state: str
    """waiting, running, paused, stopped, searched, finished."""
    waiting: int
    running: int
    complete: int
    pruned: int
    failed: int
    best: Best | None
    rows: tuple[RunningRow, ...]
    per_hour: float | None
    """Trials finished an hour, over the last minute or, when they are few, longer; None when none did."""

    @property
    def finished(self) -> int:
        """Trials in a terminal state."""
        return self.complete + self.pruned + self.failed

    @property
    def total(self) -> int:
        """The study's budget."""
        return self.finished + self.waiting + self.running

    def as_json(self) -> dict[str, Any]:
        """For `hpo status --json`."""
        best = None if self.best is None else vars(self.best)
        counts = {key: getattr(self, key) for key in ("waiting", "running", "complete", "pruned", "failed")}
        return {
            "study": self.study,
            "state": self.state,
            **counts,
            "best": best,
            "trials_per_hour": self.per_hour,
        }


class StatusReader:
    """Reads a study's status again and again, at the cost of what changed."""

    def __init__(self, database: Database, study: StudyRecord) -> None:
        self.studies = Studies(database)
        self.study = study
        self.history = History(database, study.study_id)

    def read(self) -> Status:
        """The status now."""
        self.history.refresh()
        self.study = self.studies.study(self.study.name)
        counts = self.studies.counts(self.study.study_id)
        trials = [self.history.trials[number] for number in sorted(self.history.trials)]
        return Status(
            study=self.study.name,
            state=_state(counts, self.study.attrs),
            waiting=counts[TrialState.WAITING],
            running=counts[TrialState.RUNNING],
            complete=counts[TrialState.COMPLETE],
            pruned=counts[TrialState.PRUNED],
            failed=counts[TrialState.FAIL],
            best=_best(trials, self.study.direction),
            rows=tuple(_row(trial) for trial in trials if trial.state == TrialState.RUNNING),
            per_hour=pace(trials),
        )


def time_is_up(hours: float | None, attrs: Mapping[str, Any]) -> bool:
    """Whether so many hours have passed since the first trial of a study (`attrs`) was claimed."""
    if hours is None or STARTED not in attrs:
        return False
    return bool(time.time() > attrs[STARTED] + hours * 3600)


def _state(counts: dict[TrialState, int], attrs: dict[str, Any]) -> str:
    waiting, running = counts[TrialState.WAITING], counts[TrialState.RUNNING]
    if RESULT in attrs:
        return "finished"
    if not running and (not waiting or _time_was_up(attrs)):
        return "searched"
    if attrs.get(STOPPED):
        return "stopped"
    if running:
        return "running"
    return "waiting" if waiting == sum(counts.values()) else "paused"


def _time_was_up(attrs: dict[str, Any]) -> bool:
    return time_is_up(attrs.get(CONFIG, {}).get("hours"), attrs)


def _best(trials: list[FrozenTrial], direction: StudyDirection) -> Best | None:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    if not complete:
        return None
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    # The first of equals, whatever the order of reading: as `study.best_trial` of Optuna.
    best = max(complete, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))
    return Best(best.number, best.params, best.value or 0.0)


def _row(trial: FrozenTrial) -> RunningRow:
    epoch = trial.last_step or 0
    return RunningRow(trial.number, epoch, trial.intermediate_values.get(epoch), trial.params)


def pace(trials: list[FrozenTrial]) -> float | None:
    """Trials an hour, over the shortest window with a few ends in it: it neither jumps nor lags."""
    now = datetime.now()
    for window in WINDOWS:
        ended = [
            trial
            for trial in trials
            if trial.datetime_complete and _age(trial.datetime_complete, now) <= window
        ]
        if len(ended) >= ENOUGH:
            break
    if not ended:
        return None
    alive = [trial for trial in trials if trial.state == TrialState.RUNNING]
    began = max(_age(trial.datetime_start, now) for trial in [*ended, *alive] if trial.datetime_start)
    return len(ended) / max(min(window, began), 1.0) * 3600


def _age(moment: datetime, now: datetime) -> float:
    return (now - moment).total_seconds()
