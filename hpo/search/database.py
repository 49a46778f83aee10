"""The database: transactions that ride out an outage, and the schema."""

import contextlib
import getpass
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
import structlog
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as optuna_models
from sqlalchemy.engine import Connection

from hpo.errors import StorageError
from hpo.search.engine import connect_args, make_engine, parse_url

log = structlog.get_logger()
T = TypeVar("T")

STUDIES = optuna_models.StudyModel.__table__
DIRECTIONS = optuna_models.StudyDirectionModel.__table__
STUDY_ATTRS = optuna_models.StudyUserAttributeModel.__table__
TRIALS = optuna_models.TrialModel.__table__
PARAMS = optuna_models.TrialParamModel.__table__
VALUES = optuna_models.TrialValueModel.__table__
STEPS = optuna_models.TrialIntermediateValueModel.__table__
USER_ATTRS = optuna_models.TrialUserAttributeModel.__table__
SYSTEM_ATTRS = optuna_models.TrialSystemAttributeModel.__table__

LEASES = sa.Table(
    "hpo_leases",
    sa.MetaData(),
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column(
        "attempt", sa.Integer, nullable=False, doc="How often the trial was claimed; fences old writes."
    ),
    sa.Column("worker", sa.String(64), doc="Who holds it; NULL while it waits again."),
    sa.Column("renewed", sa.Float(53), nullable=False, doc="Seconds since 1970, by the database's clock."),
    sa.Column("progress", sa.Integer, nullable=False, doc="Epochs recorded when it was last reclaimed."),
    sa.Column(
        "fruitless", sa.Integer, nullable=False, doc="Attempts in a row that died alone with no new epoch."
    ),
    sa.Column("alone", sa.Boolean, nullable=False, doc="Died together with others: to be retried alone."),
    sa.Column(
        "seconds",
        sa.Float(53),
        nullable=False,
        server_default="30",  # for the rows of a table that is upgraded: what `--lease` is by default
        doc="How long its worker may leave it unrenewed; chosen by that worker.",
    ),
)
"""One row for each trial that was ever claimed; deleted with its trial."""

FIXED_PARAMS = "fixed_params"
"""System attribute of a trial that was enqueued with parameters, as Optuna's `enqueue_trial` writes it."""
CONSTRAINTS = "constraints"
"""System attribute of a trial: by how much it exceeds each constraint; 0 and less are within it. As samplers
of Optuna wrote it before there was `Trial.set_constraint`: Optuna reads both, optuna-dashboard this one."""

_LOCK_KEY = 0x68706F  # "hpo", for pg_advisory_lock
_FOLLOW_TRIALS = {
    "sqlite": (
        "CREATE TRIGGER IF NOT EXISTS hpo_leases_follow AFTER DELETE ON trials "
        "BEGIN DELETE FROM hpo_leases WHERE trial_id = OLD.trial_id; END",
    ),
    "postgresql": (
        "ALTER TABLE hpo_leases DROP CONSTRAINT IF EXISTS hpo_leases_follow",
        "ALTER TABLE hpo_leases ADD CONSTRAINT hpo_leases_follow "
        "FOREIGN KEY (trial_id) REFERENCES trials (trial_id) ON DELETE CASCADE",
    ),
}
"""SQLite enforces foreign keys only on connections that ask for it, and other tools' do not: a trigger."""


class Database:
    """An engine on SQLite or Postgres, and transactions on it that are repeated after an outage.

    A transaction may run more than once, also after it was committed (when the answer to COMMIT was lost),
    so what it does must be idempotent.
    """

    def __init__(self, url: str, patience: float = 180.0, read_only: bool = False) -> None:
        """`patience`: seconds that a transaction waits for a database that was reachable before.
        `read_only`: whether the database is told to refuse all writing.

        Raises:
            UsageError: the URL is malformed, names another kind of database, or its driver is missing.
        """
        self.url = parse_url(url)
        self.patience = patience
        self.connected = False
        self.engine = make_engine(self.url, read_only)

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self.engine.dispose()

    @property
    def sqlite(self) -> bool:
        """Whether it is SQLite; otherwise it is Postgres."""
        return self.engine.dialect.name == "sqlite"

    def __str__(self) -> str:
        """The URL, its password hidden."""
        return self.url.set(query={}).render_as_string(hide_password=True)  # the query may hold one too

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that sees one state of the database."""
        # At Postgres' own level each statement sees another state. SQLite's transactions always see one.
        return self._repeat(work, isolation="REPEATABLE READ")

    def look(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which reads with one statement: on Postgres without BEGIN and COMMIT around it."""
        return self._repeat(work, isolation="AUTOCOMMIT")

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that holds SQLite's write lock from its beginning."""
        return self._repeat(work)

    def act(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which on Postgres writes with one statement: without BEGIN and COMMIT around it."""
        return self._repeat(work, isolation=None if self.sqlite else "AUTOCOMMIT")

    def _repeat(self, work: Callable[[Connection], T], isolation: str | None = None) -> T:
        chosen = {"isolation_level": isolation} if isolation else {}
        options: dict[str, Any] = {"hpo_write": isolation is None} if self.sqlite else chosen
        # A file is there at once, but it may be locked, and while its first user turns on the write-ahead log
        # SQLite does not even wait for its busy timeout.
        deadline = time.monotonic() + (self.patience if self.connected or self.sqlite else 0.0)
        waits, stale = 0, True
        while True:
            try:
                with self.engine.connect() as plain:
                    connection = plain.execution_options(**options)
                    with connection.begin():
                        result = work(connection)
            except sa.exc.DBAPIError as error:
                if not self._transient(error):
                    raise self._failure(error) from error
                # A pooled connection's server may have been restarted; to ask before each use costs a round
                # trip. So a new connection is tried once, before anything is said or waited for.
                if not (stale and error.connection_invalidated):
                    self._wait(waits, deadline, error)
                    waits += 1
                stale = False
            else:
                if waits and self.connected:
                    log.info("the database answers again", database=str(self))
                self.connected = True
                return result

    def _transient(self, error: sa.exc.DBAPIError) -> bool:
        if self.sqlite:  # after its own busy timeout of 60 s
            return "locked" in str(error.orig) or "busy" in str(error.orig)
        return error.connection_invalidated or isinstance(
            error, sa.exc.OperationalError | sa.exc.InterfaceError
        )

    def _wait(self, waits: int, deadline: float, error: sa.exc.DBAPIError) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._failure(error) from error
        if waits in {1, 5} or waits % 20 == 0:
            log.warning(
                "the database does not answer; waiting for it",
                database=str(self),
                reason=str(error.orig).strip().partition("\n")[0],
                seconds_left=round(left),
            )
        # Backoff with jitter, so that a hundred workers do not all come back in the same instant.
        time.sleep(min(left, 0.1 * 2 ** min(waits, 5)) * random.uniform(0.5, 1.0))

    def _failure(self, error: sa.exc.DBAPIError) -> StorageError:
        return StorageError(f"{self}: {str(error.orig).strip()}")

    # --- schema

    def has_schema(self) -> bool:
        """Whether the tables are there.

        Raises:
            StorageError: the database cannot be reached, or its tables are an earlier hpo's.
        """
        if self.sqlite and not Path(self.url.database or "").exists():
            return False  # looking would make an empty file
        missing = self.read(_missing_columns)
        if missing and len(missing) < len(LEASES.columns):
            names = ", ".join(column.name for column in missing)
            raise StorageError(
                f"{self}: its tables are an earlier hpo's ({LEASES.name} has no {names}); `hpo db upgrade` "
                "brings them up to date, while no worker is at work"
            )
        return not missing

    def create_schema(self) -> None:
        """Make the tables, ours and Optuna's, if they are not there. Any number of processes may race.

        Raises:
            StorageError: the database cannot be reached, or its schema is another Optuna version's.
        """
        if not self.has_schema():
            with self._alone():
                if not self.has_schema():  # those who waited find it made, and perhaps at work already
                    self._optuna_schema()
                    self.write(self._own_schema)
        self._optuna_schema(skip_table_creation=True)

    def upgrade_schema(self) -> None:
        """Bring the tables of an earlier Optuna or hpo up to date. No worker may be at work meanwhile.

        Raises:
            StorageError: the database cannot be reached, or its schema is a later version's.
        """
        with self._alone():
            self._optuna_schema(skip_compatibility_check=True, upgrade=True)
            self.write(self._own_schema)

    def _optuna_schema(self, upgrade: bool = False, **options: Any) -> None:
        # RDBStorage fills in a template, so that a brace in a password must be doubled.
        url = self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        connect = {"connect_args": connect_args(self.url, statement="0"), "poolclass": sa.NullPool}
        try:
            storage = RDBStorage(url, engine_kwargs=connect, **options)
            if upgrade:
                storage.upgrade()
        except sa.exc.DBAPIError as error:
            raise self._failure(error) from error
        except RuntimeError as error:
            raise StorageError(f"{self}: {error}; `hpo db upgrade` brings older tables up to date") from error

    def _own_schema(self, connection: Connection) -> None:
        LEASES.metadata.create_all(connection)
        for column in _missing_columns(connection):
            definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {LEASES.name} ADD COLUMN {definition}")
        connection.exec_driver_sql(
            "CREATE INDEX IF NOT EXISTS hpo_trials_by_state ON trials (study_id, state, number)"
        )
        for statement in _FOLLOW_TRIALS[self.engine.dialect.name]:
            connection.exec_driver_sql(statement)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the one lock under which schemas are made."""
        if self.sqlite:
            name = hashlib.sha256(str(Path(self.url.database or "").resolve()).encode()).hexdigest()[:16]
            with FileLock(Path(tempfile.gettempdir()) / f"hpo-{getpass.getuser()}-{name}.lock"):
                yield
            return
        with self.engine.connect() as plain:
            # Not in a transaction, which would be ended by the server for being idle.
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            try:
                connection.exec_driver_sql("SET statement_timeout = 0")  # another's upgrade may take long
                connection.execute(sa.select(sa.func.pg_advisory_lock(_LOCK_KEY)))
            except sa.exc.DBAPIError as error:
                raise self._failure(error) from error
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK_KEY)))
                connection.exec_driver_sql("RESET statement_timeout")

    def now(self) -> sa.ColumnElement[float]:
        """The database's clock: seconds since 1970, UTC."""
        if self.sqlite:
            return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float)
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT."""
        return (sqlalchemy.dialects.sqlite if self.sqlite else sqlalchemy.dialects.postgresql).insert(table)


def _missing_columns(connection: Connection) -> list[sa.Column[Any]]:
    """Those of `hpo_leases` that it has not; all of them where it is not there."""
    inspector = sa.inspect(connection)
    there = inspector.get_columns(LEASES.name) if inspector.has_table(LEASES.name) else []
    names = {column["name"] for column in there}
    return [column for column in LEASES.columns if column.name not in names]


def utc_now() -> datetime:
    """As Optuna stores it: naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)
