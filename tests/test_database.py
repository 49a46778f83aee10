"""Database URLs, their mistakes, and what becomes of passwords."""

from pathlib import Path
from urllib.parse import quote

import optuna
import psycopg.sql
import pytest
import sqlalchemy as sa
import structlog
from optuna.study import StudyDirection
from servers import Postgres
from sqlalchemy.engine import Connection

from hpo.errors import StorageError, UsageError
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.leases import Leases
from hpo.search.store import Store
from hpo.search.studies import Studies


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a database URL"),
        ("postgresql://me:s3cret@host:port/db", "not a database URL"),
        ("mysql://host/db", "'mysql' is not supported"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("sqlite:////no/such/folder/x.db", "there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_url_is_named_with_what_is_valid(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Database(url)
    assert "s3cret" not in str(caught.value)


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


PASSWORD = "{0} %s %41 }}{ pä$$ :/@?#&=+ 'x' \\\\ ü"


@pytest.fixture
def guarded(postgres: Postgres) -> str:
    """A database of a server that asks for `PASSWORD`; its URL without it."""
    url = postgres.database()
    role, rules = f"guarded_{url.rpartition('/')[2]}", postgres.data / "pg_hba.conf"
    rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD {psycopg.sql.quote(PASSWORD)}")
        connection.execute("SELECT pg_reload_conf()")
    return url.replace("hpo@", f"{role}@")


@pytest.mark.postgres
def test_a_password_of_any_characters_works_and_a_wrong_one_is_not_shown(guarded: str) -> None:
    with Database(guarded.replace("@", f":{quote(PASSWORD, safe='')}@")) as database:
        database.create_schema()
        assert database.has_schema()
        assert quote(PASSWORD, safe="") not in str(database) and PASSWORD not in str(database)
    with (
        Database(guarded.replace("@", ":wr0ng@")) as database,
        pytest.raises(StorageError, match="password authentication failed for user") as caught,
    ):
        database.create_schema()
    assert "wr0ng" not in str(caught.value)


@pytest.mark.postgres
def test_a_password_may_be_in_the_password_file(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"127.0.0.1:*:*:*:{escaped}\n")
    file.chmod(0o600)
    with Database(guarded) as database, pytest.raises(StorageError, match="no password supplied"):
        database.create_schema()
    monkeypatch.setenv("PGPASSFILE", str(file))
    with Database(guarded) as database:
        database.create_schema()
        assert database.has_schema()


@pytest.mark.postgres
def test_connections_to_postgres_are_given_up_in_time_and_keep_what_the_url_says(postgres: Postgres) -> None:
    url = f"{postgres.database()}?keepalives_idle=7&options=-csearch_path%3Dpg_catalog"

    def look(connection: Connection) -> tuple[dict[str, str], list[object]]:
        told = connection.connection.driver_connection.info.get_parameters()
        names = ("timezone", "statement_timeout", "idle_in_transaction_session_timeout", "search_path")
        return told, [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    with Database(url) as database:
        told, shown = database.read(look)
    assert shown == ["UTC", "1min", "1min", "pg_catalog"]
    assert (told["connect_timeout"], told["tcp_user_timeout"], told["keepalives_idle"]) == (
        "10",
        "30000",
        "7",
    )
    assert (told["keepalives_interval"], told["keepalives_count"]) == ("5", "4")


@pytest.mark.postgres
def test_a_connection_that_the_server_closed_is_replaced_unnoticed(postgres: Postgres) -> None:
    with Database(postgres.database()) as database, structlog.testing.capture_logs() as logs:
        database.create_schema()
        database.has_schema()
        with psycopg.connect(f"{postgres.database()}", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='hpo'"
            )
        assert database.has_schema()
    assert logs == []


@pytest.mark.postgres
def test_a_server_that_was_restarted_meanwhile_costs_no_patience_and_no_warning(postgres: Postgres) -> None:
    def ask(connection: Connection) -> object:
        return connection.exec_driver_sql("SELECT 1").scalar()

    with Database(postgres.database(), patience=0.0) as database:
        database.read(lambda _: database.write(ask))  # with two connections
        for mode in ("fast", "immediate"):
            postgres.stop(mode)
            postgres.start()
            with structlog.testing.capture_logs() as logs:
                assert database.read(lambda connection: (ask(connection), database.look(ask))) == (1, 1)
            assert logs == []


def test_while_the_database_is_away_it_is_said_with_the_reason_and_the_time_left(tmp_path: Path) -> None:
    away = Database("postgresql://me:s3cret@127.0.0.1:1/x", patience=0.5)
    away.connected = True
    with structlog.testing.capture_logs() as logs, pytest.raises(StorageError, match=r"refused"):
        away.has_schema()
    assert logs[0]["event"] == "the database does not answer; waiting for it"
    assert "refused" in logs[0]["reason"] and "s3cret" not in str(logs)


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


def test_the_leases_of_an_earlier_hpo_are_named_and_brought_up_to_date(database: Database) -> None:
    study = Studies(database).submit("s", StudyDirection.MAXIMIZE, {}, 2)
    Store(database).claim(study.study_id, "w", {}, 1, 10)
    database.write(
        lambda connection: connection.exec_driver_sql("ALTER TABLE hpo_leases DROP COLUMN seconds")
    )
    for look in (database.has_schema, database.create_schema):
        with pytest.raises(StorageError, match=r"hpo_leases has no seconds\); `hpo db upgrade` brings"):
            look()
    database.upgrade_schema()
    assert database.has_schema()
    (lease,) = Leases(database).running()
    assert (lease.worker, lease.seconds) == ("w", 30.0)
    database.upgrade_schema()


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
