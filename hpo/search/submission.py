"""A configuration as a study in the database, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from optuna.study import StudyDirection
from pydantic import ValidationError

from hpo.config import StudyConfig
from hpo.data.prepared import PreparedData
from hpo.errors import UsageError
from hpo.search.records import StudyRecord
from hpo.search.status import CONFIG, RESULT, STARTED, WARM_START
from hpo.search.studies import Studies
from hpo.search.warmstart import beginning

log = structlog.get_logger()

FOLDER, FINGERPRINT, DATA = "hpo:folder", "hpo:fingerprint", "hpo:data"
EARLIER_RESULTS = "hpo:earlier_results"


def submit(
    studies: Studies, config: StudyConfig, fingerprint: str, data: Mapping[str, Any] | None = None
) -> StudyRecord:
    """Register the study with its resolved configuration; the same one again changes nothing.

    Args:
        studies: Where.
        config: What the study file says.
        fingerprint: Of the data, so that no worker searches on others.
        data: What is to be known of the data without them (`data_facts`).

    Raises:
        UsageError: a study of that name has another configuration or other data; the study to begin with
            (`warm_start`) is not there, or of no use to this one.
    """
    direction = StudyDirection.MAXIMIZE if config.direction == "maximize" else StudyDirection.MINIMIZE
    attrs: dict[str, Any] = {
        CONFIG: config.model_dump(mode="json"),
        FOLDER: str(config.folder.resolve()),
        FINGERPRINT: fingerprint,
        DATA: data,
    }
    trials: list[Any] = []
    if config.warm_start is not None and not studies.studies(config.name):
        attrs[WARM_START] = _warm_start(studies, config, config.warm_start.study, fingerprint)
        trials = [trial["params"] for trial in attrs[WARM_START]["trials"]]
    study = studies.submit(config.name, direction, attrs, config.trials, trials)
    stored = config_of(study)
    if stored.digest() != config.digest():
        keys = ", ".join(_differences(stored.model_dump(mode="json"), config.model_dump(mode="json")))
        raise UsageError(
            f"study {config.name!r} is already in {studies.database} with another configuration ({keys} "
            "differ); give the new one another name, or `hpo extend` the old one for more trials"
        )
    check_data(study, fingerprint)
    return study


def _warm_start(studies: Studies, config: StudyConfig, name: str, fingerprint: str) -> dict[str, Any]:
    """What a new study begins with, to be recorded with it."""
    try:
        earlier = studies.study(name)
        old = config_of(earlier)
    except UsageError as error:
        raise UsageError(f"warm_start.study: {error}") from error
    trials = beginning(studies, config, earlier, old)
    same = earlier.attrs[FINGERPRINT] == fingerprint
    if not same:
        log.warning(
            f"study {name!r}, which this one begins with, was searched on other data or other parts of them: "
            "its trials may have been chosen by examples that are test examples here"
        )
    return {"study": name, "same_data": same, "trials": trials}


def data_facts(prepared: PreparedData) -> dict[str, Any]:
    """Rows of each part, and what was noticed in the raw data: for reports that do not have them at hand."""
    findings = [[finding.kind, finding.text] for finding in prepared.findings]
    return {"sizes": dict(prepared.sizes), "findings": findings}


def extend(studies: Studies, study: StudyRecord, trials: int) -> int:
    """Add trials to a study; answers how many it has now.

    Its result, if it has one, is set aside. Its `hours` begin anew, or none of the trials would be claimed.
    """

    def change(attrs: Mapping[str, Any]) -> dict[str, Any]:
        if RESULT not in attrs:
            return {STARTED: None}
        earlier = [*attrs.get(EARLIER_RESULTS, []), attrs[RESULT]]
        return {EARLIER_RESULTS: earlier, RESULT: None, STARTED: None}

    return studies.extend(study.study_id, trials, change)


def check_data(study: StudyRecord, fingerprint: str) -> None:
    """Refuse data other than those that the study was submitted with.

    Raises:
        UsageError: their fingerprint differs.
    """
    if study.attrs[FINGERPRINT] != fingerprint:
        raise UsageError(
            f"study {study.name!r} was submitted with other data: they have changed since, or are another "
            f"version here (fingerprint {study.attrs[FINGERPRINT][:12]}, here {fingerprint[:12]})"
        )


def config_of(study: StudyRecord) -> StudyConfig:
    """The configuration that a study was submitted with.

    Raises:
        UsageError: the study was not made by hpo, or by a version whose study files were different.
    """
    if CONFIG not in study.attrs:
        raise UsageError(f"study {study.name!r} was not made by hpo: it has no attribute {CONFIG!r}")
    try:
        config = StudyConfig.model_validate(study.attrs[CONFIG])
    except ValidationError as error:
        raise UsageError(f"study {study.name!r}: its configuration is another version's: {error}") from error
    return config.at(Path(study.attrs[FOLDER]))


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key):
            continue
        inside = isinstance(old.get(key), dict) and isinstance(new.get(key), dict)
        keys += _differences(old[key], new[key], f"{prefix}{key}.") if inside else [prefix + key]
    return keys
