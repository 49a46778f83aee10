"""Leases: renewed while their worker lives, taken back when it was seen dead."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import sqlalchemy as sa
import structlog
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from hpo.errors import StorageError
from hpo.search.database import LEASES, STEPS, TRIALS, USER_ATTRS, Database, utc_now
from hpo.search.records import Holder, Lease, Sign
from hpo.search.upsert import Upsert

log = structlog.get_logger()

WATCHED = 30.0
"""Seconds: others with leases as long as this, the default, are watched closely enough from the beginning."""


class Leases:
    """The leases of a `Database`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._upsert_user_attrs = Upsert(database, USER_ATTRS, ["trial_id", "key"], ["value_json"])

    def renew(self, worker: str) -> None:
        """Renew all leases of `worker`."""
        running = sa.select(TRIALS.c.trial_id).where(TRIALS.c.state == TrialState.RUNNING)
        update = (
            sa.update(LEASES)
            .where(LEASES.c.worker == worker, LEASES.c.trial_id.in_(running))
            .values(renewed=self.database.now())
        )

        def work(connection: Connection) -> None:
            connection.execute(update)

        self.database.write(work)

    def signs(self, study_id: int | None = None) -> list[Sign]:
        """Of each worker with running trials (of one study) its newest sign of life.

        Read in a transaction that could write: while SQLite is locked it still answers readers, to whom
        everybody would look dead, since nobody can renew.
        """
        newest, longest = sa.func.max(LEASES.c.renewed), sa.func.max(LEASES.c.seconds)
        query = _of_running(study_id, LEASES.c.worker, newest, longest).group_by(LEASES.c.worker)
        return self.database.write(lambda connection: [Sign(*row) for row in connection.execute(query)])

    def running(self, study_id: int | None = None, workers: Collection[str] | None = None) -> list[Lease]:
        """The leases of all running trials (of one study, or of some workers)."""
        query = _of_running(
            study_id,
            LEASES.c.trial_id,
            LEASES.c.attempt,
            LEASES.c.worker,
            LEASES.c.renewed,
            LEASES.c.seconds,
        )
        if workers is not None:
            query = query.where(LEASES.c.worker.in_(workers))
        return self.database.read(lambda connection: [Lease(*row) for row in connection.execute(query)])

    def holders(self, study_id: int) -> list[Holder]:
        """The workers that hold running trials of a study, by name."""
        silent = self.database.now() - sa.func.max(LEASES.c.renewed)
        query = (
            sa.select(LEASES.c.worker, sa.func.count(), silent)
            .join(TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id)
            .where(
                TRIALS.c.study_id == study_id,
                TRIALS.c.state == TrialState.RUNNING,
                LEASES.c.worker.is_not(None),
            )
            .group_by(LEASES.c.worker)
            .order_by(LEASES.c.worker)
        )
        return self.database.read(lambda connection: [Holder(*row) for row in connection.execute(query)])

    def unfinished(self, study_id: int) -> tuple[int, int]:
        """How many trials of a study wait, and how many are held by workers, at one moment.

        Read one after the other, a trial on its way from running to waiting would be in neither.
        """
        query = (
            sa.select(TRIALS.c.state, sa.func.count())
            .outerjoin(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
            .where(
                TRIALS.c.study_id == study_id,
                sa.or_(
                    TRIALS.c.state == TrialState.WAITING,
                    sa.and_(TRIALS.c.state == TrialState.RUNNING, LEASES.c.worker.is_not(None)),
                ),
            )
            .group_by(TRIALS.c.state)
        )

        def work(connection: Connection) -> dict[TrialState, int]:
            return {row[0]: row[1] for row in connection.execute(query)}

        found = self.database.read(work)
        return found.get(TrialState.WAITING, 0), found.get(TrialState.RUNNING, 0)

    def reclaim(self, expired: Sequence[Lease], retries: int) -> None:
        """Take back trials whose leases were seen `expired`, unless they were renewed since.

        A trial that died alone more than `retries` times in a row without a new epoch fails; any other
        waits again under its number. Trials that died together are marked to be retried alone, which
        tells the guilty one from its neighbours.
        """

        def work(connection: Connection) -> None:
            together = Counter(lease.worker for lease in expired)
            for lease in sorted(expired, key=lambda lease: lease.trial_id):
                self._reclaim_one(connection, lease, retries, alone=together[lease.worker] == 1)

        if expired:
            self.database.write(work)

    def _reclaim_one(self, connection: Connection, lease: Lease, retries: int, alone: bool) -> None:
        same = (
            LEASES.c.trial_id == lease.trial_id,
            LEASES.c.attempt == lease.attempt,
            LEASES.c.worker == lease.worker,
            LEASES.c.renewed == lease.renewed,
        )
        row = connection.execute(
            sa.select(LEASES.c.progress, LEASES.c.fruitless).where(*same).with_for_update()
        ).one_or_none()
        if row is None:
            return
        reached = connection.execute(
            sa.select(sa.func.coalesce(sa.func.max(STEPS.c.step), 0)).where(
                STEPS.c.trial_id == lease.trial_id
            )
        ).scalar_one()
        fruitless = 0 if reached > row.progress else row.fruitless + int(alone)
        connection.execute(
            sa.update(LEASES)
            .where(*same)
            .values(worker=None, progress=reached, fruitless=fruitless, alone=not alone or fruitless > 0)
        )
        failed = fruitless > retries
        if failed:
            cause = (
                f"its worker died {fruitless} times in a row after epoch {reached}, training this trial alone"
            )
            self._upsert_user_attrs(connection, [(lease.trial_id, "failure", json.dumps(cause))])
        connection.execute(
            sa.update(TRIALS)
            .where(TRIALS.c.trial_id == lease.trial_id, TRIALS.c.state == TrialState.RUNNING)
            .values(
                state=TrialState.FAIL if failed else TrialState.WAITING,
                datetime_start=TRIALS.c.datetime_start if failed else None,
                datetime_complete=utc_now() if failed else None,
            )
        )


def _of_running(study_id: int | None, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of the leases of running trials (of one study) that a worker holds."""
    query = (
        sa.select(*columns)
        .join_from(LEASES, TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id)
        .where(TRIALS.c.state == TrialState.RUNNING, LEASES.c.worker.is_not(None))
    )
    return query if study_id is None else query.where(TRIALS.c.study_id == study_id)


class Watch:
    """Notices workers that do not renew their leases.

    A worker counts as dead, and all its leases as expired, once none of them was seen renewed for as long as
    it chose itself, by looks that followed each other closely: after an outage of the database, or a pause of
    this process, everyone would look dead.
    """

    def __init__(self, leases: Leases, retries: int, study_id: int | None = None) -> None:
        self.leases = leases
        self.retries = retries
        self.study_id = study_id
        self.shortest = math.inf
        """Seconds of the shortest lease seen last: looks must follow each other faster."""
        self._first_seen: dict[Sign, float] = {}
        self._last_look = -math.inf

    def look(self) -> list[Lease]:
        """Look once, and reclaim what has expired.

        Returns:
            The expired leases.
        """
        started = time.monotonic()
        signs = self.leases.signs(self.study_id)
        now = time.monotonic()
        unseen = now - min(started, self._last_look)
        self._last_look = now
        self.shortest = min((sign.seconds for sign in signs), default=math.inf)
        self._first_seen = {
            sign: now if unseen > sign.seconds else self._first_seen.get(sign, now) for sign in signs
        }
        dead = {
            sign.worker: sign.renewed
            for sign, since in self._first_seen.items()
            if now - since > sign.seconds
        }
        expired = self._leases_of(dead)
        if expired:
            log.info("taking back trials whose worker is gone", workers=sorted(dead))
            self.leases.reclaim(expired, self.retries)
        return expired

    def _leases_of(self, dead: Mapping[str, float]) -> list[Lease]:
        """The leases of workers, by name when they were seen last; not of one that renewed some since."""
        if not dead:
            return []
        leases = self.leases.running(self.study_id, dead)
        alive = {lease.worker for lease in leases if lease.renewed > dead[lease.worker]}
        return [lease for lease in leases if lease.worker not in alive]


class Heartbeat:
    """A thread that renews a worker's leases and watches those of the others; it ends with its process.

    A context manager around the worker's life.
    """

    def __init__(self, leases: Leases, worker: str, seconds: float, retries: int) -> None:
        self.leases = leases
        self.worker = worker
        self.seconds = seconds
        self.watch = Watch(leases, retries)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _beat(self) -> None:
        while not self._stop.wait(min(self.seconds, self.watch.shortest, WATCHED) / 4):
            try:
                self.leases.renew(self.worker)
                self.watch.look()
            except StorageError as error:
                # The worker itself meets the same outage at its next write, and decides there.
                log.warning("leases could not be renewed", reason=str(error))
