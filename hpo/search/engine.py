"""Engines on SQLite and Postgres: which URLs are valid, and how connections are made."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url

from hpo.errors import UsageError


def parse_url(url: str) -> URL:
    """A database's URL, for our driver.

    Raises:
        UsageError: it is malformed, or names another kind of database; the message does not quote it.
    """
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: of a port that is no number
        raise UsageError(
            "storage: not a database URL; valid: sqlite:///file.db, postgresql://user@host:5432/database"
        ) from None  # the error quotes the URL
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise UsageError(f"storage: {backend!r} is not supported; valid: sqlite:///file.db, postgresql://…")
    if not parsed.database or parsed.database == ":memory:":
        raise UsageError("storage: workers share the database, so SQLite needs a file: sqlite:///file.db")
    return parsed


def connect_args(url: URL, statement: str = "60s", read_only: bool = False) -> dict[str, Any]:
    """What a connection is told, but for what the URL says itself; `statement` is the time one may take."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": 60}
    chosen: dict[str, Any] = {
        "connect_timeout": 10,
        "application_name": "hpo",
        # A peer that vanished is noticed within 30 s, not after 15 minutes, or 2 hours if it owes an answer.
        "tcp_user_timeout": 30_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
    }
    options = f"-c timezone=UTC -c statement_timeout={statement} -c idle_in_transaction_session_timeout=60s"
    theirs = url.query.get("options", "")  # libpq's, of the user: a search path, say
    rest = {key: value for key, value in chosen.items() if key not in url.query}
    last = "-c default_transaction_read_only=on" if read_only else ""  # of two equal ones the last counts
    return rest | {"options": f"{options} {theirs} {last}".strip()}


def make_engine(url: URL, read_only: bool = False) -> Engine:
    """An engine whose write transactions hold SQLite's lock from their beginning (option `hpo_write`).

    With `read_only` the database itself refuses to write.

    Raises:
        UsageError: the driver is missing, or the folder of a SQLite file.
    """
    try:
        engine = sa.create_engine(url, connect_args=connect_args(url, read_only=read_only))
    except ModuleNotFoundError as error:
        raise UsageError(
            f"storage: Postgres needs the driver {error.name}: pip install 'hpo[postgres]'"
        ) from error
    if engine.dialect.name == "sqlite":
        folder = Path(url.database or "").parent
        if not folder.is_dir():
            raise UsageError(f"storage: there is no folder {folder} for {url.database}")
        event.listen(engine, "connect", _prepare_sqlite_reader if read_only else _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    _set_pragmas(connection, "busy_timeout=60000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


def _prepare_sqlite_reader(connection: Any, _record: Any) -> None:
    # Not `mode=ro` in the URL: such a connection cannot open a write-ahead log that nobody else has open.
    _set_pragmas(connection, "busy_timeout=5000", "query_only=ON")


def _set_pragmas(connection: Any, *pragmas: str) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin_sqlite
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns into a writer fails at once when another one wrote meanwhile,
    # whatever the busy timeout: writers take the lock at their beginning.
    write = connection.get_execution_options().get("hpo_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
