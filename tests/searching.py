"""Searching a study in the test's own process, with the real worker."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.launch import serve
from hpo.search.records import StudyRecord
from hpo.search.running import WorkerOptions
from hpo.search.studies import Studies
from hpo.search.submission import submit


def submitted(database: Database, config: StudyConfig) -> StudyRecord:
    """The study, registered."""
    return submit(Studies(database), config, prepare(config).fingerprint)


def search(
    database: Database, config: StudyConfig, workers: int = 1, lanes: int | None = 16, **options: Any
) -> list[FrozenTrial]:
    """Search a study to its end with one worker, as one of `workers`; answers its trials, by number.

    Measuring how many lanes pay takes longer than a small study: only tests of that measurement leave it to
    the worker, with None for `lanes`.
    """
    study = submitted(database, config)
    serve(database, study, WorkerOptions(lanes, workers, poll=0.05, **options), threading.Event())
    return read_trials(database, study.study_id)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema; making it takes longer than many a study."""
    path = tmp_path_factory.mktemp("empty") / "hpo.db"
    with Database(f"sqlite:///{path}") as database:
        database.create_schema()
    return path


@pytest.fixture
def new_database(empty_database: Path, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Makes SQLite databases with the schema."""
    made: list[Database] = []

    def make() -> Database:
        path = tmp_path / f"hpo{len(made)}.db"
        shutil.copy(empty_database, path)
        made.append(Database(f"sqlite:///{path}"))
        return made[-1]

    yield make
    for database in made:
        database.engine.dispose()


@pytest.fixture
def sqlite(new_database: Callable[[], Database]) -> Database:
    """A SQLite database with the schema."""
    return new_database()
