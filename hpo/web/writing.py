"""The view that also writes, for --allow-writes: notes, and deleting a study. Nothing else."""

import json
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb.models import TrialHeartbeatModel
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from hpo.errors import UsageError
from hpo.search.database import (
    DIRECTIONS,
    PARAMS,
    STEPS,
    STUDIES,
    STUDY_ATTRS,
    SYSTEM_ATTRS,
    TRIALS,
    USER_ATTRS,
    VALUES,
    Database,
)
from hpo.search.upsert import Upsert
from hpo.web.notes import is_note
from hpo.web.storage import STUDY_SYSTEM_ATTRS, View

_OF_TRIALS = (PARAMS, VALUES, STEPS, USER_ATTRS, SYSTEM_ATTRS, TrialHeartbeatModel.__table__)


class WritableView(View):
    """A view with a second connection, which writes."""

    def __init__(self, database: Database, writer: Database) -> None:
        super().__init__(database)
        self._writer = writer
        self._upsert = Upsert(writer, STUDY_SYSTEM_ATTRS, ["study_id", "key"], ["value_json"])

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if not is_note(key, value):
            self._refuse()
        row = (study_id, key, json.dumps(value))
        self._writer.write(lambda connection: self._upsert(connection, [row]))
        self.forget()

    def delete_study(self, study_id: int) -> None:
        """Delete a study and its trials.

        Raises:
            KeyError: there is none with this id.
            UsageError: a worker is at one of its trials.
        """
        name = self.get_study_name_from_id(study_id)

        def work(connection: Connection) -> None:
            mine = TRIALS.c.study_id == study_id
            locked = sa.select(TRIALS.c.state).where(mine).with_for_update()
            if TrialState.RUNNING in connection.scalars(locked).all():
                raise UsageError(f"study {name!r} has running trials: `hpo stop {name}` first")
            ids = sa.select(TRIALS.c.trial_id).where(mine)
            for table in _OF_TRIALS:
                connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
            for table in (TRIALS, DIRECTIONS, STUDY_ATTRS, STUDY_SYSTEM_ATTRS, STUDIES):
                connection.execute(sa.delete(table).where(table.c.study_id == study_id))

        self._writer.write(work)
        self.forget()
