"""A worker that stays: it serves every study of a database, and finalizes those that are searched."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from hpo.errors import HpoError, Interrupted
from hpo.results.conclude import OPENINGS, conclude_if_free
from hpo.results.place import Place
from hpo.search.database import Database
from hpo.search.launch import open_studies, serve
from hpo.search.records import StudyRecord
from hpo.search.running import WorkerOptions
from hpo.search.status import CONFIG, RESULT, StatusReader
from hpo.search.studies import Studies

Action = Callable[[StudyRecord, threading.Event], None]

PAUSE = 5.0
"""Seconds between looks for something to do."""
REFUSAL = 60.0
"""Seconds after which a study is tried again that could not be served: its data may be there by then."""


class Service:
    """What one worker process does for all studies of a database."""

    def __init__(
        self,
        database: Database,
        options: WorkerOptions,
        out: Path,
        checkpoints: Path | None,
        say: Callable[[str], None],
    ) -> None:
        """`out` gets a results folder for each study; `say` is told what was done, and what could not be."""
        self.database = database
        self.options = options
        self.out = out
        self.checkpoints = checkpoints
        self.say = say
        self._refused: dict[int, tuple[str, float]] = {}
        """By study: why it was not served, and when."""
        self._places: dict[int, Place] = {}

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set."""
        while not stop.is_set():
            for study in open_studies(self.database, None, stop):
                self._attempt(study, self._search, stop)
            for study in Studies(self.database).studies():
                if not stop.is_set() and self._is_searched(study):
                    self._attempt(study, self._conclude, stop)
            stop.wait(PAUSE)

    def _attempt(self, study: StudyRecord, action: Action, stop: threading.Event) -> None:
        """Do something for a study. What it cannot be served for is said once, and tried again later."""
        before, when = self._refused.get(study.study_id, ("", -REFUSAL))
        if time.monotonic() - when < REFUSAL:
            return
        try:
            action(study, stop)
        except Interrupted:  # by `stop`
            return
        except HpoError as error:
            if str(error) != before:
                self.say(f"{study.name}: {error}")
            self._refused[study.study_id] = str(error), time.monotonic()
        else:
            self._refused.pop(study.study_id, None)

    def _search(self, study: StudyRecord, stop: threading.Event) -> None:
        self.say(f"{study.name}: searching")
        serve(self.database, study, self.options, stop, self.checkpoints)

    def _is_searched(self, study: StudyRecord) -> bool:
        """Whether it waits to be finalized; one whose test part was opened already waits for its user."""
        if CONFIG not in study.attrs or RESULT in study.attrs or OPENINGS in study.attrs:
            return False
        return StatusReader(self.database, study).read().state == "searched"

    def _conclude(self, study: StudyRecord, stop: threading.Event) -> None:
        def go_on(doing: str, _done: int, _total: int) -> None:
            if stop.is_set():
                raise Interrupted(f"{study.name}: stopped while {doing}")

        place = self._places.setdefault(study.study_id, Place(Studies(self.database), study))
        if concluded := conclude_if_free(self.database, study, self.out / study.name, place, go_on):
            self.say(f"{study.name}: finalized, results in {concluded.out}")
