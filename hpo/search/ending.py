"""The end of a study, as its workers see it."""

import math
import time
from typing import Any

from hpo.search.database import Database
from hpo.search.leases import Leases
from hpo.search.records import StudyRecord
from hpo.search.rounds import next_round
from hpo.search.status import STARTED, STOPPED, time_is_up
from hpo.search.studies import Studies


class Ending:
    """When no more trials of a study are to be claimed, and when none is left."""

    def __init__(self, database: Database, study: StudyRecord, hours: float | None, poll: float) -> None:
        """`hours`: that the study may take; `poll`: seconds between looks at whether it was stopped."""
        self.study = study
        self.hours = hours
        self.poll = poll
        self.studies = Studies(database)
        self.leases = Leases(database)
        self.attrs: dict[str, Any] = {}
        """Of the study, as they were last read."""
        self._looked = -math.inf

    def closed(self) -> bool:
        """Whether no more trials are to be claimed: the study was stopped, or its hours are over."""
        if time.monotonic() - self._looked >= self.poll:
            self._looked = time.monotonic()
            self.attrs = self._read()
        return bool(self.attrs.get(STOPPED)) or self._time_is_up()

    def _read(self) -> dict[str, Any]:
        """Not a result, which may be a megabyte: this is asked every half a second."""
        return self.studies.attrs(self.study.study_id, [STARTED, STOPPED])

    def _time_is_up(self) -> bool:
        if self.hours is None:
            return False
        if STARTED not in self.attrs:
            first = self.studies.claim_attr(self.study.study_id, STARTED, time.time())
            self.attrs = self._read()
            if first:
                return False  # however short the hours are, its first trials begin
        return time_is_up(self.hours, self.attrs)

    def next_round(self, worker: str, workers: int, most: int) -> int:
        """How many trials `worker` takes next, see `next_round`; `workers`: so many or more are at work."""
        waiting, _ = self.leases.unfinished(self.study.study_id)
        others = {holder.name for holder in self.leases.holders(self.study.study_id)} - {worker}
        return next_round(waiting, max(workers, len(others) + 1), most)

    def left(self) -> tuple[int, bool]:
        """How many trials wait, and whether there is something to wait for: these, or others' trials."""
        waiting, held = self.leases.unfinished(self.study.study_id)
        return waiting, bool(held or (waiting and not self.closed()))
