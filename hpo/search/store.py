"""The store: ordinary Optuna tables behind atomic claims, leases that expire, and fenced writes.

    WAITING ──claim──► RUNNING ──finish──► COMPLETE | PRUNED | FAIL
       ▲                  │
       └─release, reclaim─┘

Every row that may be claimed is made by `submit`, so the budget is rows. A claim gives a trial one more
attempt; whatever a worker writes afterwards holds only while the trial's lease still names that worker and
attempt. All of it is idempotent: a transaction whose COMMIT was not answered is simply repeated.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from hpo.search.database import (
    FIXED_PARAMS,
    LEASES,
    PARAMS,
    STEPS,
    STUDIES,
    SYSTEM_ATTRS,
    TRIALS,
    USER_ATTRS,
    VALUES,
    Database,
    utc_now,
)
from hpo.search.fenced import Fenced
from hpo.search.records import Changes, Claim, Finish
from hpo.search.upsert import Upsert

# What every epoch executes is built once: building them took a fifth of the store's time.
_TRIALS: sa.BindParameter[list[int]] = sa.bindparam("trials", expanding=True)
_OF_STUDY = TRIALS.c.study_id == sa.bindparam("study")
_FINISH = (
    sa.update(TRIALS)
    .where(TRIALS.c.trial_id.in_(_TRIALS), TRIALS.c.state == TrialState.RUNNING)
    .values(state=sa.bindparam("end"), datetime_complete=sa.bindparam("moment"))
)
_START = (
    sa.update(TRIALS)
    .where(TRIALS.c.trial_id.in_(_TRIALS), TRIALS.c.state == TrialState.WAITING)
    .values(state=TrialState.RUNNING, datetime_start=sa.bindparam("moment"))
)
_RUNNING = (
    sa.select(sa.func.count())
    .join_from(TRIALS, LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
    .where(_OF_STUDY, TRIALS.c.state == TrialState.RUNNING, LEASES.c.worker.is_not(None))
    .correlate(None)
    .scalar_subquery()
)
"""Without those that another tool left running: they would keep everyone waiting for ever."""
_ALONE = sa.func.coalesce(LEASES.c.alone, sa.false())
_ATTEMPTS = sa.func.coalesce(LEASES.c.attempt, 0)
_FIXED = SYSTEM_ATTRS.c.value_json.label("fixed")
_ENQUEUED = sa.and_(SYSTEM_ATTRS.c.trial_id == TRIALS.c.trial_id, SYSTEM_ATTRS.c.key == FIXED_PARAMS)
_WAITING = (
    sa.select(TRIALS.c.trial_id, TRIALS.c.number, _ATTEMPTS + 1, _ALONE, _FIXED, _RUNNING.label("running"))
    .outerjoin(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
    .outerjoin(SYSTEM_ATTRS, _ENQUEUED)
    .where(_OF_STUDY, TRIALS.c.state == TrialState.WAITING)
    .order_by(TRIALS.c.number)
    .limit(sa.bindparam("count"))
    .with_for_update(skip_locked=True, of=TRIALS)
)
_WAITING_FOR_BUSY = _WAITING.where(sa.not_(_ALONE))
_CLAIMED = (
    sa.select(TRIALS.c.trial_id, TRIALS.c.number, LEASES.c.attempt, LEASES.c.alone, _FIXED)
    .join(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
    .outerjoin(SYSTEM_ATTRS, _ENQUEUED)
    .where(
        _OF_STUDY,
        TRIALS.c.state == TrialState.RUNNING,
        LEASES.c.worker == sa.bindparam("holder"),
    )
    .order_by(TRIALS.c.number)
)
_WAITS = sa.exists().where(_OF_STUDY, TRIALS.c.state == TrialState.WAITING)
_PROSPECTS = sa.select(_WAITS, _RUNNING)
_ONE_AT_A_TIME = (
    sa.select(STUDIES.c.study_id)
    .where(STUDIES.c.study_id == sa.bindparam("study"))
    .with_for_update(key_share=True)
)
"""Otherwise two workers count the same trials in flight, and both claim what there is room for."""


class Store:
    """What a worker does to the trials of a `Database`."""

    def __init__(self, database: Database, lease: float = 30.0) -> None:
        """`lease`: seconds that a worker may leave the trials unrenewed that it claims here."""
        self.database = database
        self.lease = lease
        self._refused = False
        """Whether the last claim got nothing."""
        self._params = Upsert(
            database, PARAMS, ["trial_id", "param_name"], ["param_value", "distribution_json"]
        )
        self._steps = Upsert(
            database,
            STEPS,
            ["trial_id", "step"],
            ["intermediate_value", "intermediate_value_type"],
            intermediate_value_type=TrialIntermediateValueModel.TrialIntermediateValueType.FINITE,
        )
        self._values = Upsert(
            database,
            VALUES,
            ["trial_id", "objective"],
            ["value", "value_type"],
            value_type=TrialValueModel.TrialValueType.FINITE,
        )
        self._user_attrs = Upsert(database, USER_ATTRS, ["trial_id", "key"], ["value_json"])
        self._system_attrs = Upsert(database, SYSTEM_ATTRS, ["trial_id", "key"], ["value_json"])
        self._leases = Upsert(
            database,
            LEASES,
            ["trial_id"],
            ["attempt", "worker", "seconds", "renewed"],
            renewed=database.now(),
            progress=0,
            fruitless=0,
            alone=False,
        )
        self._fenced = Fenced(database)
        if not database.sqlite:
            self._start = self._leases.among(_START.returning(TRIALS.c.trial_id).cte("started"))
            """For Postgres: trials begin, and their leases."""
        self._renewal = (
            sa.update(LEASES)
            .where(LEASES.c.worker == sa.bindparam("holder"), LEASES.c.trial_id.in_(_TRIALS))
            .values(renewed=database.now())
            .returning(LEASES.c.trial_id, LEASES.c.attempt)
        )

    def record(self, worker: str, held: Mapping[int, int], changes: Changes) -> set[int]:
        """Renew the worker's leases on the `held` trials and record `changes` of those that it still holds.

        Args:
            worker: The worker's name, unique to its process.
            held: Trial → the attempt under which this worker claimed it.
            changes: What to record.

        Returns:
            The trials among `held` that are no longer this worker's: nothing of theirs was written.
        """

        def work(connection: Connection) -> set[int]:
            if self.database.sqlite:
                owned = self._renew(connection, worker, held)
                self._write(connection, owned, changes)
            else:
                owned = self._fenced(connection, worker, held, self._rows(changes), changes.finishes)
            self._release(connection, sorted(set(changes.releases) & owned))
            return set(held) - owned

        if not held:
            return set()
        return (self.database.write if changes.releases else self.database.act)(work)

    def _renew(self, connection: Connection, worker: str, held: Mapping[int, int]) -> set[int]:
        """Renew leases; the row locks that this takes keep a reclaim out until the transaction ends."""
        renewed = connection.execute(self._renewal, {"holder": worker, "trials": sorted(held)})
        return {row.trial_id for row in renewed if row.attempt == held[row.trial_id]}

    def _rows(self, changes: Changes) -> list[tuple[Upsert, list[tuple[Any, ...]]]]:
        # Each `float`, for an array has one type: choices are whole numbers, and values may be NumPy's.
        values = [(f.trial_id, 0, float(f.value)) for f in changes.finishes if f.value is not None]
        return [
            (self._params, [(t, n, float(v), distribution_to_json(d)) for t, n, v, d in changes.params]),
            (self._steps, [(t, s, float(v)) for t, s, v in changes.steps if math.isfinite(v)]),
            (self._values, [value for value in values if math.isfinite(value[2])]),
            (self._user_attrs, [(t, k, json.dumps(v)) for t, k, v in changes.user_attrs]),
            (self._system_attrs, [(t, k, json.dumps(v)) for t, k, v in changes.system_attrs]),
        ]

    def _write(self, connection: Connection, owned: set[int], changes: Changes) -> None:
        for upsert, rows in self._rows(changes):
            upsert(connection, (row for row in rows if row[0] in owned))
        self._finish(connection, [finish for finish in changes.finishes if finish.trial_id in owned])

    def _finish(self, connection: Connection, finishes: Sequence[Finish]) -> None:
        for state in {finish.state for finish in finishes}:
            ended = [finish.trial_id for finish in finishes if finish.state == state]
            connection.execute(_FINISH, {"trials": ended, "end": state, "moment": utc_now()})

    def _release(self, connection: Connection, trials: Sequence[int]) -> None:
        if not trials:
            return
        connection.execute(
            sa.update(TRIALS)
            .where(TRIALS.c.trial_id.in_(trials), TRIALS.c.state == TrialState.RUNNING)
            .values(state=TrialState.WAITING, datetime_start=None)
        )
        connection.execute(sa.update(LEASES).where(LEASES.c.trial_id.in_(trials)).values(worker=None))

    def claim(
        self, study_id: int, worker: str, held: Mapping[int, int], count: int, in_flight: int
    ) -> list[Claim]:
        """Claim up to `count` waiting trials, as long as fewer than `in_flight` run in the whole study.

        When the transaction is repeated, trials that run in this worker's name under an attempt that is not
        `held` were claimed by an earlier try, whose answer was lost: they are the answer then.

        Claims of a study wait for each other. So where the last one got nothing, this one looks first, which
        nobody waits for: at a study's end all its workers ask again and again.
        """
        if self._refused and not self._promising(study_id, in_flight):
            return []
        repeated = False

        def work(connection: Connection) -> list[Claim]:
            nonlocal repeated
            # First of all: an earlier try may be committing still, and only then is seen what it claimed.
            connection.execute(_ONE_AT_A_TIME, {"study": study_id})
            if repeated:
                claimed = self._claimed(connection, study_id, worker)
                if orphans := [claim for claim in claimed if held.get(claim.trial_id) != claim.attempt]:
                    return orphans
            repeated = True
            free = self._waiting(connection, study_id, count, in_flight, bool(held))
            self._take(connection, worker, free)
            return free

        claims = self.database.write(work)
        self._refused = not claims
        return claims

    def _promising(self, study_id: int, in_flight: int) -> bool:
        """Whether there may be something to claim."""
        waits, running = self.database.look(lambda c: c.execute(_PROSPECTS, {"study": study_id}).one())
        return bool(waits and running < in_flight)

    def _waiting(
        self, connection: Connection, study_id: int, count: int, in_flight: int, busy: bool
    ) -> list[Claim]:
        """Waiting trials in order; one to be retried alone comes by itself, and not to a `busy` worker."""
        query = _WAITING_FOR_BUSY if busy else _WAITING
        rows = connection.execute(query, {"study": study_id, "count": count}).all()
        room = in_flight - rows[0].running if rows else 0
        free = [_claim(*row[:-1]) for row in rows[: max(0, room)]]
        if free and free[0].alone:
            return free[:1]
        return [claim for claim in free if not claim.alone]

    def _take(self, connection: Connection, worker: str, claims: Sequence[Claim]) -> None:
        """No other worker claims trials of their study meanwhile, so that their attempts are known."""
        if not claims:
            return
        start = {"trials": [claim.trial_id for claim in claims], "moment": utc_now()}
        leases = [(claim.trial_id, claim.attempt, worker, self.lease) for claim in claims]
        if self.database.sqlite:
            connection.execute(_START, start)
            self._leases(connection, leases)
        else:
            connection.execute(self._start, start | self._leases.arrays(leases))

    def _claimed(self, connection: Connection, study_id: int, worker: str) -> list[Claim]:
        found = connection.execute(_CLAIMED, {"study": study_id, "holder": worker})
        return [_claim(*row) for row in found]


def _claim(trial_id: int, number: int, attempt: int, alone: bool, fixed: str | None) -> Claim:
    return Claim(trial_id, number, attempt, alone, json.loads(fixed) if fixed else {})
