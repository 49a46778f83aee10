"""What a report tells of: a study as the database has it, finished or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from hpo.config import StudyConfig
from hpo.data.prepared import Finding as DataFinding
from hpo.results.audit import audit
from hpo.results.finalize import FinalResult
from hpo.results.findings import Finding, Subject
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.records import StudyRecord
from hpo.search.status import RESULT
from hpo.search.studies import EXTENSIONS, Studies
from hpo.search.submission import DATA, FINGERPRINT, config_of

NO_DATA = "a report is made from the database alone; `hpo audit` looks at the data too"


@dataclass(frozen=True)
class Reported:
    """A study, what was noticed in its data, and what an audit of it came to."""

    config: StudyConfig
    trials: Sequence[FrozenTrial]
    """Those that were claimed, by number."""
    waiting: int
    """Trials that nobody has claimed."""
    result: FinalResult | None
    sizes: Mapping[str, int]
    """Rows of each part; empty where they were not recorded."""
    noticed: Sequence[DataFinding] | None
    """In the raw data; None where it was not recorded."""
    audited: Sequence[Finding]
    fingerprint: str
    """Of the data."""
    extensions: Sequence[int]
    """How many trials were added, each time that some were."""

    @property
    def running(self) -> int:
        """Trials that were claimed and have not ended."""
        return sum(trial.state == TrialState.RUNNING for trial in self.trials)


def reported(database: Database, study: StudyRecord) -> Reported:
    """A study as the database has it.

    Raises:
        UsageError: it was not made by hpo.
    """
    known = study.attrs.get(RESULT)
    result = FinalResult.model_validate(known["result"]) if known else None
    waiting = Studies(database).counts(study.study_id)[TrialState.WAITING]
    trials = read_trials(database, study.study_id)
    return told(Subject(config_of(study), trials, waiting, study.attrs, result, None, NO_DATA))


def told(subject: Subject) -> Reported:
    """What a report tells of a study; of its data, if they are not at hand, what was recorded."""
    sizes, noticed = _noticed(subject)
    return Reported(
        config=subject.config,
        trials=subject.trials,
        waiting=subject.waiting,
        result=subject.result,
        sizes=sizes,
        noticed=noticed,
        audited=audit(subject),
        fingerprint=subject.attrs.get(FINGERPRINT, ""),
        extensions=[mark["trials"] for mark in subject.attrs.get(EXTENSIONS, [])],
    )


def _noticed(subject: Subject) -> tuple[Mapping[str, int], Sequence[DataFinding] | None]:
    if subject.prepared is not None:
        return subject.prepared.sizes, subject.prepared.findings
    recorded = subject.attrs.get(DATA)
    if recorded is None:
        return {}, None
    return recorded["sizes"], [DataFinding(kind, text) for kind, text in recorded["findings"]]
