"""What a worker process does, and what those who launch it tell it."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from optuna.trial import TrialState

from hpo.data.prepare import prepare
from hpo.search.database import Database
from hpo.search.leases import Leases, Watch
from hpo.search.records import StudyRecord
from hpo.search.running import WorkerOptions
from hpo.search.status import CONFIG, RESULT, STOPPED, time_is_up
from hpo.search.studies import Studies
from hpo.search.submission import check_data, config_of
from hpo.search.trainer import Trainer
from hpo.search.worker import Worker
from hpo.training.checkpoint import Checkpoints
from hpo.training.memory import keep_freed_memory


def serve(
    database: Database,
    study: StudyRecord,
    options: WorkerOptions,
    stop: threading.Event,
    checkpoints: Path | None = None,
    device: str = "auto",
) -> None:
    """Work on one study in this process until it is searched or `stop` is set.

    `checkpoints` is the folder that workers share for them; by default beside the SQLite file, or
    `checkpoints` in the current folder.

    Raises:
        UsageError: the data here are not those that the study was submitted with.
    """
    config = config_of(study)
    prepared = prepare(config)
    check_data(study, prepared.fingerprint)
    # Of this very configuration and data: another study of the same name has other weights.
    version = hashlib.sha256((config.digest() + prepared.fingerprint).encode()).hexdigest()[:12]
    folder = (checkpoints or checkpoints_of(database)) / f"{study.name}-{version}"
    keep_freed_memory()
    trials = 0 if options.lanes == 1 else config.trials / options.workers
    trainer = Trainer(config, prepared, device, trials)
    Worker(database, study, config, trainer, options, stop, Checkpoints(folder)).run()


def checkpoints_of(database: Database) -> Path:
    """The folder of checkpoints where none is named: beside the SQLite file, or in the current folder."""
    return Path(f"{database.url.database}.checkpoints") if database.sqlite else Path("checkpoints")


def open_studies(database: Database, name: str | None, stop: threading.Event) -> Iterator[StudyRecord]:
    """The study called `name`; without a name each study that has trials left, once.

    Raises:
        UsageError: there is no study of that name.
    """
    studies = Studies(database)
    if name is not None:
        yield studies.study(name)
        return
    served: set[int] = set()
    while not stop.is_set():
        left = [
            study for study in studies.studies() if CONFIG in study.attrs and study.study_id not in served
        ]
        unfinished = [study for study in left if _open(studies, study)]
        if not unfinished:
            return
        served.add(unfinished[0].study_id)
        yield unfinished[0]


def _open(studies: Studies, study: StudyRecord) -> bool:
    if study.attrs.get(STOPPED) or RESULT in study.attrs:
        return False
    counts = studies.counts(study.study_id)
    to_claim = 0 if time_is_up(study.attrs[CONFIG].get("hours"), study.attrs) else counts[TrialState.WAITING]
    return to_claim + counts[TrialState.RUNNING] > 0


def watch_leases(database: Database, study: StudyRecord, options: WorkerOptions) -> Watch:
    """A watch over a study's leases, for the launcher: it works also when all workers are dead."""
    return Watch(Leases(database), options.retries, study.study_id)


def worker_command(
    study: str | None, options: WorkerOptions, threads: int, checkpoints: Path | None
) -> list[str]:
    """The arguments of `hpo` that start a worker, of one study or of any."""
    command = ["worker", *([study] if study else []), f"--workers={options.workers}"]
    command += [f"--lanes={options.lanes or 'auto'}", f"--threads={threads}", f"--lease={options.lease}"]
    return command + ([f"--checkpoints={checkpoints}"] if checkpoints is not None else [])
