"""What optuna-dashboard reads: all studies of the store, as a `BaseStorage` whose writes raise."""

import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import sqlalchemy as sa
import structlog
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.storages._rdb.models import StudySystemAttributeModel
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from hpo.errors import HpoError, StorageError
from hpo.search.database import DIRECTIONS, STUDIES, STUDY_ATTRS, Database
from hpo.search.status import CONFIG
from hpo.web.notes import stored_notes
from hpo.web.readable import readable_attrs
from hpo.web.watched import FRESH, StudyRow, Watched

log = structlog.get_logger()

FACTS = ("metric", "architecture", "options", "data", "validation", "sampler", "pruner", "trials", "hours")
"""Of a study's configuration, what its attributes on the page tell; the note has its space."""

STUDY_SYSTEM_ATTRS = StudySystemAttributeModel.__table__


class ReadOnlyError(HpoError):
    """The dashboard does not write: start it with --allow-writes for notes and deletions."""


class View(BaseStorage):
    """All studies of a database, for any number of threads. While it does not answer, as last seen."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._rows: dict[int, StudyRow] = {}
        self._read = -math.inf
        self._watched: dict[int, Watched] = {}
        self._parsed: dict[tuple[int, str, str], tuple[str, Any]] = {}
        """Attributes by study, table and key: a result may have a megabyte, and is parsed once."""

    def rows(self) -> dict[int, StudyRow]:
        """All studies, by their id."""
        with self._lock:
            if time.monotonic() - self._read >= FRESH:
                try:
                    self._rows = self._unchanged(self.database.read(self._study_rows))
                    self._watched = {key: known for key, known in self._watched.items() if key in self._rows}
                    self._parsed = {key: known for key, known in self._parsed.items() if key[0] in self._rows}
                except StorageError as error:
                    self._stale(error)
                self._read = time.monotonic()
            return self._rows

    @contextmanager
    def study(self, study_id: int) -> Iterator[Watched]:
        """A study, refreshed, and nobody else's meanwhile.

        Raises:
            KeyError: there is none with this id.
        """
        row = self.rows()[study_id]
        with self._lock:
            known = self._watched.get(study_id)
            if known is None or known.row.name != row.name:
                known = self._watched[study_id] = Watched(self.database, row)
        with known.lock:
            try:
                known.refresh(row)
            except StorageError as error:
                if not known.version:
                    raise
                self._stale(error)
            yield known

    def forget(self) -> None:
        """Read all studies anew at the next look."""
        with self._lock:
            self._read = -math.inf

    def _stale(self, error: StorageError) -> None:
        log.warning("the dashboard shows what it last read", reason=str(error))

    def _unchanged(self, rows: dict[int, StudyRow]) -> dict[int, StudyRow]:
        """The rows, those that are as before by the very same object."""
        return {key: self._rows[key] if self._rows.get(key) == row else row for key, row in rows.items()}

    def _study_rows(self, connection: Connection) -> dict[int, StudyRow]:
        directions: dict[int, list[StudyDirection]] = defaultdict(list)
        query = sa.select(DIRECTIONS.c.study_id, DIRECTIONS.c.direction).order_by(DIRECTIONS.c.objective)
        for row in connection.execute(query):
            directions[row.study_id].append(row.direction)
        attrs = self._attrs(connection, STUDY_ATTRS)
        system_attrs = self._attrs(connection, STUDY_SYSTEM_ATTRS)
        studies = connection.execute(sa.select(STUDIES).order_by(STUDIES.c.study_id)).all()
        return {
            row.study_id: StudyRow(
                row.study_id,
                row.study_name,
                tuple(directions[row.study_id]) or (StudyDirection.MINIMIZE,),
                attrs[row.study_id],
                system_attrs[row.study_id],
            )
            for row in studies
        }

    def _attrs(self, connection: Connection, table: sa.Table) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        for row in connection.execute(sa.select(table.c.study_id, table.c.key, table.c.value_json)):
            place = (row.study_id, table.name, row.key)
            if self._parsed.get(place, ("", None))[0] != row.value_json:
                self._parsed[place] = (row.value_json, json.loads(row.value_json))
            found[row.study_id][row.key] = self._parsed[place][1]
        return found

    # --- what optuna-dashboard reads

    def get_study_id_from_name(self, study_name: str) -> int:
        for row in self.rows().values():
            if row.name == study_name:
                return row.study_id
        raise KeyError(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.rows()[study_id].name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return list(self.rows()[study_id].directions)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return shown_attrs(self.rows()[study_id])

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return stored_notes(self.rows()[study_id])

    def get_all_studies(self) -> list[FrozenStudy]:
        return [
            FrozenStudy(
                study_name=row.name,
                direction=None,
                directions=list(row.directions),
                user_attrs=shown_attrs(row),
                system_attrs={},
                study_id=row.study_id,
            )
            for row in self.rows().values()
        ]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        for study_id in self.rows():
            with self.study(study_id) as study:
                for trial in study.trials:
                    if trial._trial_id == trial_id:
                        return trial
        raise KeyError(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        # Never a deep copy: nobody here changes a trial.
        with self.study(study_id) as study:
            return [trial for trial in study.trials if states is None or trial.state in states]

    # --- what nobody may do here

    def _refuse(self) -> NoReturn:
        raise ReadOnlyError(str(ReadOnlyError.__doc__))

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._refuse()

    def delete_study(self, study_id: int) -> None:
        self._refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self._refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._refuse()


def shown_attrs(row: StudyRow) -> dict[str, Any]:
    """A study's attributes; in place of hpo's own, what of its configuration fits into a line each."""
    config = row.attrs.get(CONFIG)
    facts = {name: config.get(name) for name in FACTS} if isinstance(config, Mapping) else {}
    theirs = {key: value for key, value in row.attrs.items() if not key.startswith("hpo:")}
    return readable_attrs({name: value for name, value in facts.items() if value not in (None, {})} | theirs)
