"""Reading trials: what was claimed, as Optuna's `FrozenTrial`s, and only what may have changed."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from hpo.search.database import PARAMS, STEPS, SYSTEM_ATTRS, TRIALS, USER_ATTRS, VALUES, Database

BATCH = 5000
"""Trials a statement: SQLite allows 32,766 variables."""
CLAIMED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_CLAIMED_SINCE = sa.select(TRIALS).where(
    TRIALS.c.study_id == sa.bindparam("study"),
    TRIALS.c.number >= sa.bindparam("first"),
    TRIALS.c.state.in_(CLAIMED),
)
_NUMBERS_SINCE = _CLAIMED_SINCE.with_only_columns(TRIALS.c.number)


class History:
    """A study's claimed trials, kept up to date.

    A finished trial never changes again, so each is read once: a reading starts at the first trial that was
    unfinished at the last one.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self.database = database
        self.study_id = study_id
        self.finished: dict[int, FrozenTrial] = {}
        """By number."""
        self.running: dict[int, FrozenTrial] = {}
        """By number."""
        self._settled = 0
        """All trials with a lower number are known to be finished; of some only their worker knows yet."""

    @property
    def trials(self) -> list[FrozenTrial]:
        """All of them, by number."""
        return sorted([*self.finished.values(), *self.running.values()], key=attrgetter("number"))

    def forget(self, number: int) -> None:
        """Know nothing of a trial until it is read again."""
        self.finished.pop(number, None)
        self.running.pop(number, None)
        self._settled = min(self._settled, number)

    def refresh(self, own: Collection[int] = ()) -> list[FrozenTrial]:
        """Read what changed.

        Args:
            own: Numbers of running trials that are left as they are, for their worker knows them best.

        Returns:
            Trials that have finished since the last reading.
        """

        while self._settled in self.finished:
            self._settled += 1
        bounds = {"study": self.study_id, "first": self._settled}
        if not self.running.keys() - set(own) and not self._news(bounds, own):
            return []

        def work(connection: Connection) -> tuple[set[int], list[FrozenTrial]]:
            claimed = connection.execute(_CLAIMED_SINCE, bounds).all()
            changed = [row for row in claimed if row.number not in own and row.number not in self.finished]
            return {row.number for row in claimed}, list(_frozen(connection, changed))

        claimed, changed = self.database.read(work)
        for number in self.running.keys() - claimed - set(own):
            del self.running[number]  # handed back: it waits
        for trial in changed:
            self.running.pop(trial.number, None)
            (self.finished if trial.state.is_finished() else self.running)[trial.number] = trial
        return [trial for trial in changed if trial.state.is_finished()]

    def _news(self, bounds: Mapping[str, int], own: Collection[int]) -> set[int]:
        """Numbers of claimed trials that are not known: none, where a worker works by itself."""
        numbers = self.database.look(lambda connection: connection.scalars(_NUMBERS_SINCE, bounds).all())
        return set(numbers) - self.finished.keys() - set(own)


def read_trials(database: Database, study_id: int) -> list[FrozenTrial]:
    """All claimed trials of a study, by number."""
    history = History(database, study_id)
    history.refresh()
    return history.trials


def waiting_before(database: Database, study_id: int, number: int) -> list[FrozenTrial]:
    """Trials of a lower number that wait: handed back, or reclaimed."""
    query = sa.select(TRIALS).where(
        TRIALS.c.study_id == study_id, TRIALS.c.number < number, TRIALS.c.state == TrialState.WAITING
    )
    return database.read(lambda connection: list(_frozen(connection, connection.execute(query).all())))


def _frozen(connection: Connection, rows: Sequence[Any]) -> Iterator[FrozenTrial]:
    """Trial rows with all that belongs to them."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        ids = [row.trial_id for row in batch]
        params = _by_trial(connection, PARAMS, ids)
        values = _by_trial(connection, VALUES, ids)
        steps = _by_trial(connection, STEPS, ids)
        user_attrs = _by_trial(connection, USER_ATTRS, ids)
        system_attrs = _by_trial(connection, SYSTEM_ATTRS, ids)
        for row in batch:
            distributions = {p.param_name: _distribution(p.distribution_json) for p in params[row.trial_id]}
            yield FrozenTrial(
                number=row.number,
                state=row.state,
                value=None,
                values=_values(values[row.trial_id]),
                datetime_start=_local(row.datetime_start),
                datetime_complete=_local(row.datetime_complete),
                params={
                    p.param_name: distributions[p.param_name].to_external_repr(p.param_value)
                    for p in params[row.trial_id]
                },
                distributions=distributions,
                user_attrs={a.key: json.loads(a.value_json) for a in user_attrs[row.trial_id]},
                system_attrs={a.key: json.loads(a.value_json) for a in system_attrs[row.trial_id]},
                intermediate_values={
                    s.step: TrialIntermediateValueModel.stored_repr_to_intermediate_value(
                        s.intermediate_value, s.intermediate_value_type
                    )
                    for s in steps[row.trial_id]
                },
                trial_id=row.trial_id,
            )


def _by_trial(connection: Connection, table: sa.Table, ids: Sequence[int]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    primary = next(iter(table.primary_key))
    for row in connection.execute(sa.select(table).where(table.c.trial_id.in_(ids)).order_by(primary)):
        found[row.trial_id].append(row)
    return found


def _values(rows: list[Any]) -> list[float] | None:
    ordered = sorted(rows, key=lambda row: int(row.objective))
    return [TrialValueModel.stored_repr_to_value(row.value, row.value_type) for row in ordered] or None


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """Optuna stores naive UTC and shows naive local time."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
