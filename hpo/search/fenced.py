"""What a worker records, as one statement for Postgres: a single round trip, and by itself a transaction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Connection

from hpo.search.database import LEASES, TRIALS, Database, utc_now
from hpo.search.records import Finish
from hpo.search.upsert import Upsert

Rows = Iterable[tuple[Any, ...]]


class Fenced:
    """Renews leases, and writes for those trials whose lease was renewed.

    The renewal, as a common table expression, is what everything else in the statement is conditional on:
    where another transaction holds a lease, it waits for this one and looks again.
    """

    def __init__(self, database: Database) -> None:
        held = _pairs("trials", "attempts", sa.Integer())
        self.owned = (
            sa.update(LEASES)
            .where(
                LEASES.c.worker == sa.bindparam("holder"),
                LEASES.c.trial_id == held.c.trials,
                LEASES.c.attempt == held.c.attempts,
            )
            .values(renewed=database.now())
            .returning(LEASES.c.trial_id)
            .cte("owned")
        )
        self._statements: dict[tuple[str, ...], sa.Select[Any]] = {}
        """By the tables that they write, for those that have nothing to write cost a server time as well."""

    def __call__(
        self,
        connection: Connection,
        worker: str,
        held: Mapping[int, int],
        rows: Sequence[tuple[Upsert, Rows]],
        finishes: Sequence[Finish],
    ) -> set[int]:
        """Renew the leases on `held` trials, by trial their attempts, and write; answers which are owned."""
        values: dict[str, Any] = {"holder": worker, "trials": list(held), "attempts": list(held.values())}
        upserts = []
        for upsert, of_upsert in rows:
            if arrays := upsert.arrays(of_upsert):
                values |= arrays
                upserts.append(upsert)
        if finishes:
            values |= {
                "ended": [finish.trial_id for finish in finishes],
                "ends": [finish.state for finish in finishes],
                "moment": utc_now(),
            }
        key = (*(upsert.table.name for upsert in upserts), *(["trials"] if finishes else []))
        if key not in self._statements:
            self._statements[key] = self._statement(upserts, bool(finishes))
        return set(connection.scalars(self._statements[key], values))

    def _statement(self, upserts: Sequence[Upsert], finishes: bool) -> sa.Select[Any]:
        writes = [upsert.among(self.owned).cte(f"into_{upsert.table.name}") for upsert in upserts]
        if finishes:
            writes.append(self._finish().cte("into_trials"))
        return sa.select(self.owned.c.trial_id).add_cte(*writes)

    def _finish(self) -> sa.Update:
        end = _pairs("ended", "ends", TRIALS.c.state.type)
        return (
            sa.update(TRIALS)
            .where(
                TRIALS.c.trial_id == end.c.ended,
                TRIALS.c.trial_id.in_(sa.select(self.owned.c.trial_id)),
                TRIALS.c.state == TrialState.RUNNING,
            )
            .values(state=end.c.ends, datetime_complete=sa.bindparam("moment"))
        )


def _pairs(ids: str, others: str, kind: sa.types.TypeEngine[Any]) -> Any:
    """Two parameters, arrays of the same length, as a table with columns of these names."""
    arrays = sa.bindparam(ids, type_=ARRAY(sa.Integer)), sa.bindparam(others, type_=ARRAY(kind))
    columns = sa.column(ids, sa.Integer), sa.column(others, kind)
    return sa.func.unnest(*arrays).table_valued(*columns).render_derived(f"{ids}_{others}")
