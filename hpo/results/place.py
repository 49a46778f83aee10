"""The place of the one process that concludes a study: renewed while that lives, taken from the dead."""

import contextlib
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from hpo.errors import StorageError
from hpo.search.records import StudyRecord
from hpo.search.studies import Studies

log = structlog.get_logger()

FINALIZER = "hpo:finalizer"
"""Attribute of a study: who is at it."""
BEAT = 5.0
"""Seconds between renewals."""
SILENCE = 60.0
"""Seconds without one after which another process takes the place."""


class Place:
    """One process' part in who concludes a study."""

    def __init__(self, studies: Studies, study: StudyRecord) -> None:
        self.studies = studies
        self.study = study
        self.mine = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._holder: Any = None
        """As last seen."""
        self._first_seen = self._last_look = -math.inf

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Whether this process has the place; if so, until the block ends."""
        if not self.studies.claim_attr(self.study.study_id, FINALIZER, self.mine | {"beat": 0}):
            self._watch()
            yield False
            return
        left = threading.Event()
        thread = threading.Thread(target=self._beat, args=(left,), name="finalizer", daemon=True)
        thread.start()
        try:
            yield True
        finally:
            left.set()
            thread.join()
            self._renew(None)

    def is_mine(self, attrs: Mapping[str, Any]) -> bool:
        """Whether it is this process' by a study's attributes: another one may have taken it meanwhile."""
        return bool((attrs.get(FINALIZER) or {}).get("id") == self.mine["id"])

    def _beat(self, left: threading.Event) -> None:
        beat = 0
        while not left.wait(BEAT):
            beat += 1
            try:
                self._renew(self.mine | {"beat": beat})
            except StorageError as error:  # the process itself meets it when it records something
                log.warning("the place of the finalizing process was not renewed", reason=str(error))

    def _renew(self, value: dict[str, Any] | None) -> None:
        self.studies.change_attrs(
            self.study.study_id, lambda attrs: {FINALIZER: value} if self.is_mine(attrs) else {}
        )

    def _watch(self) -> None:
        """Look at whoever has the place, and take it from a process that has died."""
        holder = self.studies.study(self.study.name).attrs.get(FINALIZER)
        now = time.monotonic()
        # After an outage of the database, or a pause of this process, everyone would look dead.
        if holder != self._holder or now - self._last_look > SILENCE / 2:
            if holder is not None and self._holder is None:
                log.info("waiting for another process that finalizes", host=holder["host"], pid=holder["pid"])
            self._holder, self._first_seen = holder, now
        self._last_look = now
        if holder is not None and (_ended(holder) or now - self._first_seen > SILENCE):
            self.studies.drop_attr(self.study.study_id, FINALIZER, holder)


def _ended(holder: Mapping[str, Any]) -> bool:
    """Whether it was a process of this machine that is no more."""
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False
