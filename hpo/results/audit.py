"""`hpo audit`: what could be wrong with a study, in sentences with their numbers and what to do about it."""

from collections.abc import Callable, Iterator

from optuna.trial import TrialState

from hpo.data.prepare import prepare
from hpo.errors import HpoError
from hpo.results import audit_data, audit_search, audit_space, audit_test
from hpo.results.audit_pruner import pruner
from hpo.results.finalize import FinalResult
from hpo.results.findings import Finding as Finding
from hpo.results.findings import Subject as Subject
from hpo.results.findings import unchecked
from hpo.results.lanes import Progress, silent
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.records import StudyRecord
from hpo.search.status import RESULT
from hpo.search.studies import Studies
from hpo.search.submission import check_data, config_of

Check = Callable[[Subject], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "test leakage": audit_data.sealed_leakage,
    "validation leakage": audit_data.validation_leakage,
    "contradicting targets": audit_data.contradicting_targets,
    "edge of the space": audit_space.edges,
    "idle parameters": audit_space.idle,
    "still improving": audit_search.still_improving,
    "trials per parameter": audit_search.trials_per_parameter,
    "random start": audit_search.random_start,
    "failed trials": audit_search.failed,
    "not finite": audit_search.not_finite,
    "constraints": audit_search.constraints,
    "warm start": audit_search.warm_start,
    "validation-test gap": audit_test.gap,
    "test openings": audit_test.openings,
}
"""By name; the pruner's comes last, since it trains."""


def subject_of(database: Database, study: StudyRecord) -> Subject:
    """A study with all that the audit needs, as far as it is at hand.

    Raises:
        UsageError: the study was not made by hpo.
    """
    config, prepared, missing = config_of(study), None, ""
    try:
        found = prepare(config)
        check_data(study, found.fingerprint)
        prepared = found
    except HpoError as error:
        missing = str(error)
    known = study.attrs.get(RESULT)
    return Subject(
        config=config,
        trials=read_trials(database, study.study_id),
        waiting=Studies(database).counts(study.study_id)[TrialState.WAITING],
        attrs=study.attrs,
        result=FinalResult.model_validate(known["result"]) if known else None,
        prepared=prepared,
        no_data=missing,
    )


def audit(subject: Subject, retrain: int | None = 0, progress: Progress = silent) -> list[Finding]:
    """What all checks came to, warnings first.

    retrain: how many pruned trials to train to their end, so that the pruner can be judged; None: a few, if
    that takes minutes by what their epochs took. Nothing of it is written to the study.
    """
    findings = [found for name, check in CHECKS.items() for found in _checked(name, check, subject)]
    judged = _checked("pruner", lambda study: pruner(study, retrain, progress), subject)
    order = ("warning", "unchecked", "fine")
    return sorted([*findings, *judged], key=lambda finding: order.index(finding.severity))


def _checked(name: str, check: Check, subject: Subject) -> list[Finding]:
    try:
        return list(check(subject))
    except HpoError as error:
        return [unchecked(name, str(error))]
