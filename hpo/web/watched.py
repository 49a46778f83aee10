"""One study as the dashboard sees it: its trials by position, how it stands, and when that last changed."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.config import StudyConfig
from hpo.errors import HpoError
from hpo.search.database import Database
from hpo.search.history import History, waiting_before
from hpo.search.records import StudyRecord
from hpo.search.status import Status, StatusReader
from hpo.search.studies import Studies
from hpo.search.submission import config_of
from hpo.web.readable import readable_trial

FRESH = 1.0
"""Seconds for which what was read is shown to everyone who asks."""
STATUS = 5.0
"""Seconds for which the status of a running study is: its pace and its workers change all the time."""


@dataclass(frozen=True)
class StudyRow:
    """A study as stored, of one objective or several."""

    study_id: int
    name: str
    directions: tuple[StudyDirection, ...]
    attrs: dict[str, Any]
    system_attrs: dict[str, Any]

    @property
    def record(self) -> StudyRecord:
        return StudyRecord(self.study_id, self.name, self.directions[0], self.attrs)


class Watched:
    """A study, read again at the cost of what changed. Whoever uses it holds its `lock`."""

    def __init__(self, database: Database, row: StudyRow) -> None:
        self.lock = threading.RLock()
        self.database = database
        self.version = 0
        """Rises with each change."""
        self._begin(row)

    def _begin(self, row: StudyRow) -> None:
        self.row = row
        self.config = _config(row)
        """None for studies that hpo did not make."""
        self.trials: list[FrozenTrial] = []
        """By position, which is their number; those behind the last one that was claimed are left out."""
        self.hidden = 0
        """How many these are."""
        self.status: Status | None = None
        self.space = SearchSpace()
        self._reader = StatusReader(self.database, row.record)
        self._shown: dict[int, FrozenTrial] = {}
        self._signature: Any = None
        self._read = self._status_read = -STATUS

    def refresh(self, row: StudyRow) -> None:
        """Read what changed, unless that was done just now."""
        now = time.monotonic()
        if now - self._read < FRESH and row is self.row:
            return
        counts = Studies(self.database).counts(row.study_id)
        finished = sum(count for state, count in counts.items() if state.is_finished())
        if finished < len(self._history.finished):  # deleted, and another has its place
            self._begin(row)
        for trial in self._history.refresh():
            self._shown[trial.number] = readable_trial(trial)
            self.space.add(self._shown[trial.number])
        running = [(number, len(t.intermediate_values)) for number, t in self._history.running.items()]
        signature = (counts, running, row.attrs, row.system_attrs)
        if signature != self._signature or (running and now - self._status_read > STATUS):
            self._take(row, sum(counts.values()), now)
            self._signature = signature
        self._read = now

    @property
    def _history(self) -> History:
        return self._reader.history

    def _take(self, row: StudyRow, total: int, now: float) -> None:
        self.row, self.config = row, _config(row)
        if self.config is not None and now - self._status_read > (STATUS if self._history.running else 0):
            self.status, self._status_read = self._reader.read(), now
        self.trials = self._by_position()
        self.hidden = max(0, total - len(self.trials))
        self.version += 1

    def _by_position(self) -> list[FrozenTrial]:
        numbered = dict(self._shown)
        numbered |= {number: readable_trial(trial) for number, trial in self._history.running.items()}
        length = max(numbered, default=-1) + 1
        if len(numbered) < length:
            waiting = waiting_before(self.database, self.row.study_id, length)
            numbered |= {
                trial.number: readable_trial(trial) for trial in waiting if trial.number not in numbered
            }
        return [numbered.get(number) or _placeholder(number) for number in range(length)]

    def best(self, most: int = 1) -> list[FrozenTrial]:
        """The best complete trials of a study of one objective, best first, the earlier first of equals."""
        sign = -1 if self.row.directions[0] == StudyDirection.MAXIMIZE else 1
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: (sign * (trial.values or [0.0])[0], trial.number))[:most]


class SearchSpace:
    """Parameters that trials have, with all values that they may take."""

    def __init__(self) -> None:
        self.union: dict[str, BaseDistribution] = {}
        self.intersection: set[str] | None = None
        """Names of those that every trial has."""
        self.attrs: dict[str, bool] = {}
        """Names of user attributes, and whether all their values are numbers."""
        self.intermediate = 0
        """Trials with intermediate values."""

    def add(self, trial: FrozenTrial) -> None:
        """Take in a trial that has finished."""
        for name, value in trial.user_attrs.items():
            self.attrs[name] = self.attrs.get(name, True) and isinstance(value, int | float)
        if trial.state == TrialState.FAIL:
            return
        self.intermediate += bool(trial.intermediate_values)
        for name, distribution in trial.distributions.items():
            known = self.union.setdefault(name, distribution)
            if known is not distribution and known != distribution:
                self.union[name] = _merged(known, distribution)
        names = set(trial.distributions)
        self.intersection = names if self.intersection is None else self.intersection & names

    def parts(self) -> tuple[Sequence[tuple[str, BaseDistribution]], Sequence[tuple[str, BaseDistribution]]]:
        """What all trials have, and what any has."""
        union = sorted(self.union.items())
        return [(name, found) for name, found in union if name in (self.intersection or ())], union


def _merged(known: BaseDistribution, other: BaseDistribution) -> BaseDistribution:
    """Both ranges as one, if they are of one kind; otherwise the newer."""
    old, new = known._asdict(), other._asdict()
    if type(known) is not type(other):
        return other
    if "choices" in old:
        choices = [*old["choices"], *(choice for choice in new["choices"] if choice not in old["choices"])]
        return type(known)(choices)  # type: ignore[call-arg]
    if (old["log"], old["step"]) != (new["log"], new["step"]):
        return other
    ends = {"low": min(old["low"], new["low"]), "high": max(old["high"], new["high"])}
    return type(known)(**(old | ends))


def _config(row: StudyRow) -> StudyConfig | None:
    try:
        return config_of(row.record)
    except HpoError:
        return None


def _placeholder(number: int) -> FrozenTrial:
    """A trial that was claimed between two readings: it waits for the next one."""
    return FrozenTrial(
        number=number,
        state=TrialState.WAITING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=-1 - number,
    )
