"""Studies in the database: registering, listing, extending them. A study's budget is its rows."""

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from hpo.errors import UsageError
from hpo.search.database import (
    DIRECTIONS,
    FIXED_PARAMS,
    LEASES,
    STEPS,
    STUDIES,
    STUDY_ATTRS,
    SYSTEM_ATTRS,
    TRIALS,
    Database,
    utc_now,
)
from hpo.search.records import StudyRecord
from hpo.search.upsert import Upsert

EXTENSIONS = "hpo:extensions"
"""Attribute of a study: when it was given how many trials more."""
Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a study's attributes to those that are to be set; None removes one."""
BATCH = 1000
"""Rows a statement: SQLite allows 32,766 variables."""


class Studies:
    """The studies of a `Database`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._upsert_attrs = Upsert(database, STUDY_ATTRS, ["study_id", "key"], ["value_json"])

    def submit(
        self,
        name: str,
        direction: StudyDirection,
        attrs: Mapping[str, Any],
        trials: int,
        fixed: Sequence[Mapping[str, Any]] = (),
    ) -> StudyRecord:
        """Register a study and its waiting trials; one of that name stays as it is.

        fixed: parameters of the first trials, which are then not drawn by a sampler.
        """

        def work(connection: Connection) -> None:
            insert: Any = self.database.insert(STUDIES).values(study_name=name)
            made = connection.execute(
                insert.on_conflict_do_nothing(index_elements=["study_name"]).returning(STUDIES.c.study_id)
            ).scalar()
            if made is None:
                return
            connection.execute(sa.insert(DIRECTIONS).values(study_id=made, objective=0, direction=direction))
            self._set_attrs(connection, made, attrs)
            self._add_trials(connection, made, 0, trials)
            self._fix(connection, made, fixed)

        self.database.write(work)
        return self.study(name)

    def extend(self, study_id: int, trials: int, change: Change = lambda _: {}) -> int:
        """Add so many waiting trials; answers how many there are now.

        `change` tells what becomes of the study's attributes in the same transaction.
        """
        mark = {"id": uuid.uuid4().hex, "trials": trials, "time": f"{utc_now():%Y-%m-%dT%H:%M:%SZ}"}

        def work(connection: Connection) -> int:
            attrs = self._locked(connection, study_id)
            count = sa.select(sa.func.count()).where(TRIALS.c.study_id == study_id)
            there = int(connection.execute(count).scalar_one())
            if mark in attrs.get(EXTENSIONS, []):  # by this transaction's first run, whose answer was lost
                return there
            self._add_trials(connection, study_id, there, there + trials)
            marks = {EXTENSIONS: [*attrs.get(EXTENSIONS, []), mark]}
            self._set_attrs(connection, study_id, marks | dict(change(attrs)))
            return there + trials

        return self.database.write(work)

    def _locked(self, connection: Connection, study_id: int) -> dict[str, Any]:
        """A study's attributes; until the transaction ends, nobody else locks it or gives it new trials."""
        connection.execute(
            sa.select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id).with_for_update()
        )
        return self._attrs(connection, [study_id])[study_id]

    def _add_trials(self, connection: Connection, study_id: int, first: int, end: int) -> None:
        rows = [
            {"number": number, "study_id": study_id, "state": TrialState.WAITING}
            for number in range(first, end)
        ]
        for batch in _batches(rows):
            connection.execute(sa.insert(TRIALS), batch)

    def _fix(self, connection: Connection, study_id: int, fixed: Sequence[Mapping[str, Any]]) -> None:
        """Enqueue parameters with the first trials of a study that was just made."""
        if not fixed:
            return
        first = sa.select(TRIALS.c.trial_id, TRIALS.c.number).where(
            TRIALS.c.study_id == study_id, TRIALS.c.number < len(fixed)
        )
        rows = [
            {"trial_id": row.trial_id, "key": FIXED_PARAMS, "value_json": json.dumps(fixed[row.number])}
            for row in connection.execute(first).all()
        ]
        connection.execute(sa.insert(SYSTEM_ATTRS), rows)

    def study(self, name: str) -> StudyRecord:
        """The study called `name`.

        Raises:
            UsageError: there is none; the message lists those that there are.
        """
        studies = {study.name: study for study in self.studies(name)}
        if name not in studies:
            names = [study.name for study in self.studies()]
            raise UsageError(
                f"{self.database}: no study {name!r}; there are {', '.join(names) or 'none yet'}"
            )
        return studies[name]

    def studies(self, name: str | None = None) -> list[StudyRecord]:
        """All studies of one objective, or the one called `name`, with their attributes."""

        def work(connection: Connection) -> list[StudyRecord]:
            query = sa.select(STUDIES.c.study_id, STUDIES.c.study_name, DIRECTIONS.c.direction).join(
                DIRECTIONS, DIRECTIONS.c.study_id == STUDIES.c.study_id
            )
            if name is not None:
                query = query.where(STUDIES.c.study_name == name)
            rows = connection.execute(query.order_by(STUDIES.c.study_id)).all()
            attrs = self._attrs(connection, [row.study_id for row in rows])
            return [
                StudyRecord(row.study_id, row.study_name, row.direction, attrs[row.study_id]) for row in rows
            ]

        return self.database.read(work)

    def attrs(self, study_id: int, keys: Collection[str]) -> dict[str, Any]:
        """Those user attributes of a study, as far as they are there."""
        query = sa.select(STUDY_ATTRS.c.key, STUDY_ATTRS.c.value_json).where(
            STUDY_ATTRS.c.study_id == study_id, STUDY_ATTRS.c.key.in_(keys)
        )
        rows = self.database.look(lambda connection: connection.execute(query).all())
        return {row.key: json.loads(row.value_json) for row in rows}

    def _attrs(self, connection: Connection, study_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        attrs: dict[int, dict[str, Any]] = {study_id: {} for study_id in study_ids}
        found = sa.select(STUDY_ATTRS.c.study_id, STUDY_ATTRS.c.key, STUDY_ATTRS.c.value_json)
        for row in connection.execute(found.where(STUDY_ATTRS.c.study_id.in_(study_ids))):
            attrs[row.study_id][row.key] = json.loads(row.value_json)
        return attrs

    def finished(self, study_id: int, numbers: Collection[int]) -> set[int]:
        """Which of these numbers are of trials that have finished."""
        ended = [state for state in TrialState if state.is_finished()]
        query = sa.select(TRIALS.c.number).where(
            TRIALS.c.study_id == study_id, TRIALS.c.number.in_(numbers), TRIALS.c.state.in_(ended)
        )
        return self.database.look(lambda connection: set(connection.scalars(query)))

    def set_attrs(self, study_id: int, attrs: Mapping[str, Any]) -> None:
        """Set user attributes of a study."""
        self.database.write(lambda connection: self._set_attrs(connection, study_id, attrs))

    def change_attrs(self, study_id: int, change: Change) -> None:
        """Change user attributes of a study by what they are; `change` must be idempotent."""
        self.database.write(
            lambda connection: self._set_attrs(
                connection, study_id, change(self._locked(connection, study_id))
            )
        )

    def _set_attrs(self, connection: Connection, study_id: int, attrs: Mapping[str, Any]) -> None:
        """Set attributes, and remove those that are None."""
        set_ = [(study_id, key, json.dumps(value)) for key, value in attrs.items() if value is not None]
        self._upsert_attrs(connection, set_)
        gone = [key for key, value in attrs.items() if value is None]
        if gone:
            connection.execute(
                sa.delete(STUDY_ATTRS).where(STUDY_ATTRS.c.study_id == study_id, STUDY_ATTRS.c.key.in_(gone))
            )

    def claim_attr(self, study_id: int, key: str, value: Any) -> bool:
        """Set a user attribute that is not there; whether this call is the one that set it."""
        row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        insert = self.database.insert(STUDY_ATTRS).values(row)
        stored = sa.select(STUDY_ATTRS.c.value_json).where(
            STUDY_ATTRS.c.study_id == study_id, STUDY_ATTRS.c.key == key
        )

        def work(connection: Connection) -> bool:
            connection.execute(insert.on_conflict_do_nothing(index_elements=["study_id", "key"]))
            return bool(connection.execute(stored).scalar_one() == row["value_json"])

        return self.database.write(work)

    def drop_attr(self, study_id: int, key: str, value: Any) -> None:
        """Remove a user attribute, if it still has this value."""
        delete = sa.delete(STUDY_ATTRS).where(
            STUDY_ATTRS.c.study_id == study_id,
            STUDY_ATTRS.c.key == key,
            STUDY_ATTRS.c.value_json == json.dumps(value),
        )

        def work(connection: Connection) -> None:
            connection.execute(delete)

        self.database.write(work)

    def counts(self, study_id: int) -> dict[TrialState, int]:
        """How many trials are in each state."""

        def work(connection: Connection) -> dict[TrialState, int]:
            query = sa.select(TRIALS.c.state, sa.func.count()).where(TRIALS.c.study_id == study_id)
            found = {row[0]: row[1] for row in connection.execute(query.group_by(TRIALS.c.state))}
            return {state: found.get(state, 0) for state in TrialState}

        return self.database.read(work)

    def progress(self, study_id: int) -> tuple[int, int]:
        """How far trials have come to an end, and how many epochs of all trials are recorded.

        Counts trials that have finished, and attempts that came to nothing: each trial has only so many.
        """
        ended = [state for state in TrialState if state.is_finished()]
        mine = TRIALS.c.study_id == study_id
        finished = sa.select(sa.func.count()).where(mine, TRIALS.c.state.in_(ended))
        fruitless = (
            sa.select(sa.func.coalesce(sa.func.sum(LEASES.c.fruitless), 0))
            .join_from(LEASES, TRIALS, LEASES.c.trial_id == TRIALS.c.trial_id)
            .where(mine)
        )
        epochs = sa.select(sa.func.count()).select_from(STEPS.join(TRIALS)).where(mine)

        def work(connection: Connection) -> tuple[int, int]:
            decided = connection.execute(finished).scalar_one() + connection.execute(fruitless).scalar_one()
            return int(decided), connection.execute(epochs).scalar_one()

        return self.database.read(work)


def _batches(rows: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
