"""How a study stands: for the terminal and for scripts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.database import Database
from hpo.search.history import History
from hpo.search.leases import Leases
from hpo.search.pace import Pace, pace
from hpo.search.records import Holder, StudyRecord
from hpo.search.studies import Studies
from hpo.search.training import Measured

CONFIG = "hpo:config"
RESULT, STARTED, STOPPED = "hpo:result", "hpo:started", "hpo:stopped"
"""Attributes of a study: its result, when its first trial was claimed, whether it claims no more."""
OPENINGS = "hpo:test_openings"
"""Attribute of a study: when its test part was opened, under which configuration, and what was seen. The
first two are recorded before it is opened; an opening without a result was of a process that was killed."""
WARM_START = "hpo:warm_start"
"""Attribute of a study: which trials of which earlier study it began with."""
INFEASIBLE = "infeasible"
"""Attribute of a trial: which constraint its network violates, so that it was not trained."""
CAPACITY = "hpo:capacity"
"""Attribute of a study: what its first worker measured before it began."""


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
    """Those that constraints kept from being trained among them."""
    failed: int
    best: Best | None
    rows: tuple[RunningRow, ...]
    pace: Pace
    workers: tuple[Holder, ...]
    """Those that hold trials: a worker that waits for others' trials is not known."""
    folds: int
    """Lanes of each running trial."""
    measured: Measured | None
    """By the first worker, before it began; None when none did."""
    infeasible: int = 0
    """Of the pruned ones: their networks are beyond the study's constraints."""

    @property
    def finished(self) -> int:
        """Trials in a terminal state."""
        return self.complete + self.pruned + self.failed

    @property
    def total(self) -> int:
        """The study's budget."""
        return self.finished + self.waiting + self.running

    @property
    def lanes(self) -> int:
        """Lanes in use."""
        return self.running * self.folds

    @property
    def room(self) -> int | None:
        """Lanes of all workers; None where that is not known, or workers were told to have other numbers."""
        room = len(self.workers) * self.measured.lanes if self.measured else 0
        return room if 0 < self.lanes <= room else None

    def as_json(self) -> dict[str, Any]:
        """For `hpo status --json`."""
        best = None if self.best is None else vars(self.best)
        counts = {key: getattr(self, key) for key in _COUNTS}
        return {
            "study": self.study,
            "state": self.state,
            **counts,
            "best": best,
            "trials_per_hour": self.pace.lately,
            "trials_per_hour_overall": self.pace.overall,
            "lanes": self.lanes,
            "lanes_of_workers": self.room,
            "measured": None if self.measured is None else vars(self.measured),
            "workers": [vars(worker) for worker in self.workers],
        }


_COUNTS = ("waiting", "running", "complete", "pruned", "failed", "infeasible")


class StatusReader:
    """Reads a study's status again and again, at the cost of what changed."""

    def __init__(self, database: Database, study: StudyRecord) -> None:
        self.studies = Studies(database)
        self.leases = Leases(database)
        self.study = study
        self.history = History(database, study.study_id)

    def read(self) -> Status:
        """The status now."""
        self.study = self.studies.study(self.study.name)
        counts = self.studies.counts(self.study.study_id)
        self.history.refresh()  # last: of a study that has ended, all that was counted is there
        attrs = self.study.attrs
        trials = self.history.trials
        return Status(
            study=self.study.name,
            state=_state(counts, attrs),
            waiting=counts[TrialState.WAITING],
            running=counts[TrialState.RUNNING],
            complete=counts[TrialState.COMPLETE],
            pruned=counts[TrialState.PRUNED],
            failed=counts[TrialState.FAIL],
            infeasible=sum(INFEASIBLE in trial.user_attrs for trial in trials),
            best=_best(trials, self.study.direction),
            rows=tuple(_row(trial) for trial in trials if trial.state == TrialState.RUNNING),
            pace=pace(trials),
            workers=tuple(self.leases.holders(self.study.study_id)) if counts[TrialState.RUNNING] else (),
            folds=attrs.get(CONFIG, {}).get("validation", {}).get("folds", 1),
            measured=Measured(**attrs[CAPACITY]) if CAPACITY in attrs else None,
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
