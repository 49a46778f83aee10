"""Fixtures: databases on SQLite and on a PostgreSQL server of the tests' own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import Postgres

from hpo.search.database import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database and answers its URL; on SQLite and on Postgres."""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database
    return lambda: f"sqlite:///{tmp_path}/hpo.db"


@pytest.fixture
def database(make_database: Callable[[], str], empty_database: Path) -> Iterator[Database]:
    """A database with the schema, on SQLite and on Postgres."""
    with Database(make_database(), patience=30) as made:
        if made.sqlite:
            shutil.copy(empty_database, str(made.url.database))
        else:
            made.create_schema()
        yield made
