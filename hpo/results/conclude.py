"""The end of a study: finalize it, record the result with it, write the results folder and the report."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from hpo.data.prepare import prepare
from hpo.errors import HpoError
from hpo.results.export import check_replaceable, export
from hpo.results.finalize import FinalResult, Progress, finalize
from hpo.results.report import write_report
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.records import StudyRecord
from hpo.search.status import RESULT, StatusReader
from hpo.search.studies import Studies
from hpo.search.submission import check_data, config_of

log = structlog.get_logger()

FINALIZER, OPENINGS = "hpo:finalizer", "hpo:test_openings"


@dataclass(frozen=True)
class Conclusion:
    """A recorded result."""

    result: FinalResult
    out: str
    """The results folder."""
    search_seconds: float


def recorded(study: StudyRecord) -> Conclusion | None:
    """The result recorded with a study, if it has one."""
    if RESULT not in study.attrs:
        return None
    stored = study.attrs[RESULT]
    return Conclusion(FinalResult.model_validate(stored["result"]), stored["out"], stored["search_seconds"])


def conclude(
    database: Database,
    study: StudyRecord,
    out: Path,
    progress: Progress | None = None,
    again: bool = False,
) -> Conclusion:
    """Finalize a searched study once, and write its results folder to `out`.

    With several launchers one does it, and the others wait for its result. `again` repeats it; each opening
    of the sealed test part is recorded with the study before the part is read.

    Raises:
        HpoError: there is nothing to finalize, `out` holds something else, or the test part was opened
            before and it is not said to do it `again`.
    """
    studies = Studies(database)
    while True:
        study = studies.study(study.name)
        known = recorded(study)
        if known is not None and not again:
            return known
        if OPENINGS in study.attrs and not again:
            opened = study.attrs[OPENINGS][-1]["time"]
            raise HpoError(
                f"the test set of study {study.name!r} was opened at {opened}, and is not opened again just "
                f"like that; `hpo finalize {study.name} --again` does it, on record"
            )
        _check_searched(database, study)
        with _only_one(studies, study) as mine:
            if mine:
                return _conclude(database, studies, study, out.resolve(), progress)
        time.sleep(1.0)


def _conclude(
    database: Database, studies: Studies, study: StudyRecord, out: Path, progress: Progress | None
) -> Conclusion:
    config = config_of(study)
    check_replaceable(out, config.name)
    prepared = prepare(config)
    check_data(study, prepared.fingerprint)
    trials = read_trials(database, study.study_id)
    opening = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "config": config.digest()}
    openings = [*study.attrs.get(OPENINGS, []), opening]

    def record_opening() -> None:
        studies.set_attrs(study.study_id, {OPENINGS: openings})

    finalized = finalize(config, prepared, trials, record_opening, progress)
    result = finalized.result.model_copy(update={"openings": tuple(opening["time"] for opening in openings)})
    seconds = _search_seconds(trials)
    stored = {"result": result.model_dump(mode="json"), "out": str(out), "search_seconds": seconds}
    studies.set_attrs(study.study_id, {RESULT: stored})  # first of all: the test part is not opened twice
    summary = StatusReader(database, study).read().as_json() | {"search_seconds": seconds}
    export(out, config, prepared, replace(finalized, result=result), summary)
    write_report(out / "report.html", config, trials, result, prepared.findings, prepared.sizes)
    return Conclusion(result, str(out), seconds)


def _check_searched(database: Database, study: StudyRecord) -> None:
    status = StatusReader(database, study).read()
    if status.state in {"waiting", "running", "paused"} or (status.state == "stopped" and status.running):
        raise HpoError(
            f"study {study.name!r} is not searched: {status.waiting} trials wait, {status.running} run; "
            f"`hpo worker {study.name}` goes on, and `hpo stop {study.name}` ends it with what there is"
        )


def _search_seconds(trials: list[Any]) -> float:
    """From the first trial's start to the last one's end."""
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    return round((max(ends) - min(starts)).total_seconds(), 2) if starts and ends else 0.0


@contextlib.contextmanager
def _only_one(studies: Studies, study: StudyRecord) -> Iterator[bool]:
    """Whether this process is the one that finalizes the study; it holds that place until the block ends."""
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    if not studies.claim_attr(study.study_id, FINALIZER, mine):
        holder = studies.study(study.name).attrs.get(FINALIZER)
        if holder is not None and not _alive(holder):
            studies.drop_attr(study.study_id, FINALIZER, holder)
        elif holder is not None:
            log.info("waiting for another process that finalizes", host=holder["host"], pid=holder["pid"])
            time.sleep(4.0)
        yield False
        return
    try:
        yield True
    finally:
        studies.drop_attr(study.study_id, FINALIZER, mine)


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process that finalizes still lives; one on another machine has six hours."""
    if holder["host"] == socket.gethostname():
        if holder["pid"] == os.getpid():
            return False  # a container's process of before, under the same number
        try:
            os.kill(holder["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            return True
        return True
    return bool(time.time() - holder["since"] < 6 * 3600)
