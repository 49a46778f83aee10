"""The end of a study: finalize it, record the result with it, write the results folder and the report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.errors import HpoError
from hpo.results.bundle_folder import check_replaceable
from hpo.results.export import export, is_complete
from hpo.results.finalize import Finalized, FinalResult, finalize, rebuild
from hpo.results.findings import Subject
from hpo.results.lanes import Progress
from hpo.results.place import Place
from hpo.results.report import render
from hpo.results.reported import told
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.records import StudyRecord
from hpo.search.status import OPENINGS as OPENINGS
from hpo.search.status import RESULT, StatusReader
from hpo.search.studies import EXTENSIONS, Studies
from hpo.search.submission import EARLIER_RESULTS, check_data, config_of

log = structlog.get_logger()


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
    of the sealed test part is recorded with the study before the part is read. Where a result is recorded but
    its folder is not complete, the winner is retrained to write it, and the test part stays sealed.

    Raises:
        HpoError: there is nothing to finalize, `out` holds something else, or the test part was opened
            before and it is not said to do it `again`.
    """
    place = Place(Studies(database), study)
    while (found := conclude_if_free(database, study, out, place, progress, again)) is None:
        time.sleep(1.0)
    return found


def conclude_if_free(
    database: Database,
    study: StudyRecord,
    out: Path,
    place: Place,
    progress: Progress | None = None,
    again: bool = False,
) -> Conclusion | None:
    """As `conclude`; None while another process is at it. `place` is the same for each call for a study.

    Raises:
        HpoError: as `conclude`.
    """
    studies = Studies(database)
    study = studies.study(study.name)
    known = recorded(study)
    if known is not None and not again and (found := written(known, out)):
        return found
    with place.held() as mine:
        if not mine:
            return None
        study = studies.study(study.name)  # another process may have been at it until now
        return _Conclude(database, study, place, out.resolve(), progress).any(again)


def written(known: Conclusion, out: Path) -> Conclusion | None:
    """A recorded result and where all of its folder lies: where it was written first, or at `out`."""
    folders = (folder for folder in (Path(known.out), out.resolve()) if is_complete(folder, known.result))
    return next((replace(known, out=str(folder)) for folder in folders), None)


def write_elsewhere(
    database: Database, study: StudyRecord, known: Conclusion, out: Path, progress: Progress | None = None
) -> None:
    """The results folder of a recorded result, written to `out` too: retrained, the test part sealed.

    Raises:
        HpoError: `out` holds something else, or the data are not at hand.
    """
    place = Place(Studies(database), study)
    _Conclude(database, study, place, out.resolve(), progress).write_folder(known)


@dataclass(frozen=True)
class _Conclude:
    """What the one process does that concludes a study."""

    database: Database
    study: StudyRecord
    place: Place
    out: Path
    progress: Progress | None

    def any(self, again: bool) -> Conclusion:
        """Finalize the study, or only write the folder of its recorded result, or nothing."""
        known = recorded(self.study)
        if known is not None and not again:
            return written(known, self.out) or self._write_again(known)
        if OPENINGS in self.study.attrs and not again:
            opened = self.study.attrs[OPENINGS][-1]["time"]
            raise HpoError(
                f"the test set of study {self.study.name!r} was opened at {opened}, and is not opened again "
                f"just like that; `hpo finalize {self.study.name} --again` does it, on record"
            )
        _check_searched(self.database, self.study)
        return self._finalize()

    def _finalize(self) -> Conclusion:
        config, prepared = self._prepared()
        trials = read_trials(self.database, self.study.study_id)
        opening = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "config": config.digest()}
        openings = [*self.study.attrs.get(OPENINGS, []), opening]

        def opened(attrs: Mapping[str, Any]) -> dict[str, Any]:
            if not self.place.is_mine(attrs):
                raise HpoError(f"another process finalizes study {config.name!r} since this one was stopped")
            return {OPENINGS: openings}

        on_open = partial(Studies(self.database).change_attrs, self.study.study_id, opened)
        finalized = finalize(config, prepared, trials, on_open, self.progress)
        times = tuple(opening["time"] for opening in openings)
        result = finalized.result.model_copy(update={"openings": times})
        conclusion = Conclusion(result, str(self.out), _search_seconds(trials))
        self._record(conclusion)  # first of all: the test part is not opened twice
        self._write(config, prepared, replace(finalized, result=result), trials, conclusion)
        return conclusion

    def _write_again(self, known: Conclusion) -> Conclusion:
        log.info(
            "the results folder is not complete; the winner is retrained to write it", folder=str(self.out)
        )
        conclusion = replace(known, out=str(self.out))
        self.write_folder(conclusion)
        self._record(conclusion)
        return conclusion

    def write_folder(self, known: Conclusion) -> None:
        """The folder of a recorded result; the winner is retrained for it, and nothing is recorded."""
        config, prepared = self._prepared()
        trials = read_trials(self.database, self.study.study_id)
        self._write(config, prepared, rebuild(config, prepared, known.result, self.progress), trials, known)

    def _prepared(self) -> tuple[StudyConfig, PreparedData]:
        config = config_of(self.study)
        check_replaceable(self.out, config.name)
        prepared = prepare(config)
        check_data(self.study, prepared.fingerprint)
        return config, prepared

    def _record(self, conclusion: Conclusion) -> None:
        """Record a result: as an earlier one, if meanwhile the study was given more trials or this process,
        stopped for long, lost its place to another one."""
        result = conclusion.result.model_dump(mode="json")
        stored = {"result": result, "out": conclusion.out, "search_seconds": conclusion.search_seconds}

        def change(attrs: Mapping[str, Any]) -> dict[str, Any]:
            openings = {OPENINGS: _with_result(attrs.get(OPENINGS, []), conclusion.result)}
            if self.place.is_mine(attrs) and attrs.get(EXTENSIONS) == self.study.attrs.get(EXTENSIONS):
                return {RESULT: stored} | openings
            earlier = attrs.get(EARLIER_RESULTS, [])
            known = [attrs.get(RESULT), *earlier]
            if any(kept and kept["result"] == result for kept in known):
                return {}
            return {EARLIER_RESULTS: [*earlier, stored]} | openings

        Studies(self.database).change_attrs(self.study.study_id, change)

    def _write(
        self,
        config: StudyConfig,
        prepared: PreparedData,
        finalized: Finalized,
        trials: Sequence[FrozenTrial],
        conclusion: Conclusion,
    ) -> None:
        status = StatusReader(self.database, self.study).read()
        summary = status.as_json() | {"search_seconds": conclusion.search_seconds}
        attrs = Studies(self.database).study(self.study.name).attrs
        subject = Subject(config, trials, status.waiting, attrs, finalized.result, prepared)
        report = render(told(subject))
        export(self.out, config, prepared, finalized, summary, report)


def _with_result(openings: Sequence[Mapping[str, Any]], result: FinalResult) -> list[dict[str, Any]]:
    """The openings of a test part; the one that `result` is of says what was seen."""
    seen = {"winner": result.winner.number, "seed": result.seed, "test": result.test.scalars()}
    known = [dict(opening) for opening in openings]
    last = len(result.openings) - 1
    if 0 <= last < len(known) and known[last]["time"] == result.openings[-1]:
        known[last]["result"] = seen
    return known


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
