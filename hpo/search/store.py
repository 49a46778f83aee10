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
from hpo.search.records import Changes, Claim, Finish

FINITE = TrialValueModel.TrialValueType.FINITE
FINITE_STEP = TrialIntermediateValueModel.TrialIntermediateValueType.FINITE

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
)
"""Without those that another tool left running: they would keep everyone waiting for ever."""
_ALONE = sa.func.coalesce(LEASES.c.alone, sa.false())
_WAITING = (
    sa.select(TRIALS.c.trial_id, _ALONE.label("alone"))
    .outerjoin(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
    .where(_OF_STUDY, TRIALS.c.state == TrialState.WAITING)
    .order_by(TRIALS.c.number)
    .limit(sa.bindparam("count"))
    .with_for_update(skip_locked=True, of=TRIALS)
)
_WAITING_FOR_BUSY = _WAITING.where(sa.not_(_ALONE))
_CLAIMED = (
    sa.select(TRIALS.c.trial_id, TRIALS.c.number, LEASES.c.attempt, LEASES.c.alone)
    .join(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
    .where(
        _OF_STUDY,
        TRIALS.c.state == TrialState.RUNNING,
        LEASES.c.worker == sa.bindparam("holder"),
    )
    .order_by(TRIALS.c.number)
)
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
        self._upsert_param = database.upsert(
            PARAMS, ("trial_id", "param_name"), "param_value", "distribution_json"
        )
        self._upsert_step = database.upsert(
            STEPS, ("trial_id", "step"), "intermediate_value", "intermediate_value_type"
        )
        self._upsert_value = database.upsert(VALUES, ("trial_id", "objective"), "value", "value_type")
        self._upsert_user_attr = database.upsert(USER_ATTRS, ("trial_id", "key"), "value_json")
        self._upsert_system_attr = database.upsert(SYSTEM_ATTRS, ("trial_id", "key"), "value_json")
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
            owned = self._renew(connection, worker, held)
            self._write(connection, owned, changes)
            return set(held) - owned

        return self.database.write(work)

    def _renew(self, connection: Connection, worker: str, held: Mapping[int, int]) -> set[int]:
        """Renew leases; the row locks that this takes keep a reclaim out until the transaction ends."""
        if not held:
            return set()
        renewed = connection.execute(self._renewal, {"holder": worker, "trials": sorted(held)})
        return {row.trial_id for row in renewed if row.attempt == held[row.trial_id]}

    def _write(self, connection: Connection, owned: set[int], changes: Changes) -> None:
        params = [
            {"trial_id": t, "param_name": n, "param_value": v, "distribution_json": distribution_to_json(d)}
            for t, n, v, d in changes.params
        ]
        steps = [
            {"trial_id": t, "step": s, "intermediate_value": v, "intermediate_value_type": FINITE_STEP}
            for t, s, v in changes.steps
            if math.isfinite(v)
        ]
        values = [
            {"trial_id": f.trial_id, "objective": 0, "value": f.value, "value_type": FINITE}
            for f in changes.finishes
            if f.value is not None and math.isfinite(f.value)
        ]
        user_attrs = [
            {"trial_id": t, "key": k, "value_json": json.dumps(v)} for t, k, v in changes.user_attrs
        ]
        system_attrs = [
            {"trial_id": t, "key": k, "value_json": json.dumps(v)} for t, k, v in changes.system_attrs
        ]
        for statement, rows in (
            (self._upsert_param, params),
            (self._upsert_step, steps),
            (self._upsert_value, values),
            (self._upsert_user_attr, user_attrs),
            (self._upsert_system_attr, system_attrs),
        ):
            mine = [row for row in rows if row["trial_id"] in owned]
            if mine:
                connection.execute(statement, mine)
        self._finish(connection, [finish for finish in changes.finishes if finish.trial_id in owned])
        self._release(connection, sorted(set(changes.releases) & owned))

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

        Trials that run in this worker's name under an attempt that is not `held` were claimed by an earlier
        try of this very transaction, whose answer was lost: they are the answer then.
        """

        def work(connection: Connection) -> list[Claim]:
            orphans = [
                claim
                for claim in self._claimed(connection, study_id, worker)
                if held.get(claim.trial_id) != claim.attempt
            ]
            if orphans:
                return orphans
            connection.execute(_ONE_AT_A_TIME, {"study": study_id})
            room = in_flight - int(connection.execute(_RUNNING, {"study": study_id}).scalar_one())
            free = self._waiting(connection, study_id, min(count, room), bool(held))
            if not free:
                return []
            self._take(connection, worker, free)
            claims = {claim.trial_id: claim for claim in self._claimed(connection, study_id, worker)}
            return [claims[trial_id] for trial_id in free]

        return self.database.write(work)

    def _waiting(self, connection: Connection, study_id: int, count: int, busy: bool) -> list[int]:
        """Waiting trials in order; one to be retried alone comes by itself, and not to a `busy` worker."""
        if count <= 0:
            return []
        query = _WAITING_FOR_BUSY if busy else _WAITING
        rows = connection.execute(query, {"study": study_id, "count": count}).all()
        if rows and rows[0].alone:
            return [rows[0].trial_id]
        return [row.trial_id for row in rows if not row.alone]

    def _take(self, connection: Connection, worker: str, trials: list[int]) -> None:
        connection.execute(_START, {"trials": trials, "moment": utc_now()})
        insert: Any = self.database.insert(LEASES)
        connection.execute(
            insert.values(
                [
                    {
                        "trial_id": trial_id,
                        "attempt": 1,
                        "worker": worker,
                        "renewed": self.database.now(),
                        "progress": 0,
                        "fruitless": 0,
                        "alone": False,
                        "seconds": self.lease,
                    }
                    for trial_id in trials
                ]
            ).on_conflict_do_update(
                index_elements=["trial_id"],
                set_={
                    "attempt": LEASES.c.attempt + 1,
                    "worker": worker,
                    "renewed": self.database.now(),
                    "seconds": self.lease,
                },
            )
        )

    def _claimed(self, connection: Connection, study_id: int, worker: str) -> list[Claim]:
        found = connection.execute(_CLAIMED, {"study": study_id, "holder": worker})
        return [Claim(*row) for row in found]
