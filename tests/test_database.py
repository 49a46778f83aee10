"""Database URLs, their mistakes, and what becomes of passwords."""

from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.errors import StorageError, UsageError
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.studies import Studies


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://host/db", "'mysql' is not supported"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("sqlite:////no/such/folder/x.db", "there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_url_is_named_with_what_is_valid(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Database(url)


def test_a_password_is_not_shown() -> None:
    database = Database("postgresql://me:s3cret@localhost:1/x")
    assert "s3cret" not in str(database) and "me:***@" in str(database)


def test_an_unreachable_database_is_named_at_once_without_its_password() -> None:
    database = Database("postgresql://me:s3cret@127.0.0.1:1/x", patience=60)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
        database.has_schema()
    assert "s3cret" not in str(caught.value)


def test_a_database_in_a_folder_with_braces_percent_signs_and_umlauts_works(tmp_path: Path) -> None:
    folder = tmp_path / "a {b} 100% ü"
    folder.mkdir()
    database = Database(f"sqlite:///{folder}/hpo.db")
    database.create_schema()
    assert database.has_schema()


def test_looking_for_a_schema_makes_no_file(tmp_path: Path) -> None:
    assert not Database(f"sqlite:///{tmp_path}/none.db").has_schema()
    assert list(tmp_path.iterdir()) == []


def test_an_older_optuna_s_tables_are_named_and_brought_up_to_date(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/hpo.db") as database:
        database.create_schema()
        newest = database.read(_version)
        database.write(
            lambda connection: connection.exec_driver_sql(
                "UPDATE alembic_version SET version_num = 'v3.0.0.d'"
            )
        )
        with pytest.raises(StorageError, match="hpo db upgrade"):
            database.create_schema()
        database.upgrade_schema()
        assert database.read(_version) == newest
        database.create_schema()


def test_an_optuna_database_becomes_ours_without_losing_anything(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": sa.NullPool})
    optuna.create_study(study_name="old", storage=storage).optimize(
        lambda trial: trial.suggest_float("x", 0, 1), n_trials=3
    )
    with Database(url) as database:
        assert not database.has_schema()
        database.create_schema()
        (study,) = Studies(database).studies()
        assert [trial.value for trial in read_trials(database, study.study_id)] == [
            trial.value for trial in optuna.load_study(study_name="old", storage=storage).trials
        ]


def _version(connection: Connection) -> object:
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def test_sqlite_keeps_a_write_ahead_log_and_syncs_fully(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/hpo.db")

    def pragma(name: str) -> object:
        return database.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "hpo.db").write_text("this is a text file, and a long enough one to be read as a header")
    with pytest.raises(StorageError, match="not a database"):
        Database(f"sqlite:///{tmp_path}/hpo.db").has_schema()
