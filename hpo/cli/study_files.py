"""Commands that read a study file: search it, register it, describe its format."""

from pathlib import Path
from typing import TYPE_CHECKING

from hpo.cli.arguments import (
    DEFAULT_STORAGE,
    Cpus,
    Gpus,
    Json,
    Lanes,
    Lease,
    Out,
    Ray,
    Shared,
    Storage,
    StudyFile,
    Threads,
    Workers,
    lanes_of,
    opened,
)
from hpo.cli.output import make_console, print_json, say
from hpo.cli.placing import Request, placed
from hpo.cli.results import show_result

if TYPE_CHECKING:
    from rich.console import Console

    from hpo.config import StudyConfig
    from hpo.search.database import Database
    from hpo.search.records import StudyRecord


def run(
    study_file: StudyFile,
    storage: Storage = DEFAULT_STORAGE,
    workers: Workers = None,
    lanes: Lanes = "auto",
    threads: Threads = 1,
    lease: Lease = 30.0,
    checkpoints: Shared = None,
    out: Out = None,
    as_json: Json = False,
    ray: Ray = None,
    cpus_per_worker: Cpus = None,
    gpus_per_worker: Gpus = None,
) -> None:
    """Search a study with parallel workers, retrain and test its winner, export it.

    Run it again to go on where it was interrupted; once finished, it prints its recorded result.
    """
    from hpo.studyfile import load_study

    config = load_study(study_file)  # before the imports that take seconds: mistakes are told at once
    lane_count = lanes_of(lanes)
    request = Request(ray, cpus_per_worker, gpus_per_worker, workers)
    request.check()

    import torch

    from hpo import live
    from hpo.results.bundle_folder import check_replaceable
    from hpo.results.conclude import conclude, recorded, written
    from hpo.search.launch import worker_command
    from hpo.search.running import WorkerOptions
    from hpo.search.submission import config_of

    console = make_console(as_json)
    torch.set_num_threads(threads)
    database = opened(storage)
    study = _submit(database, config, console)
    folder = out or Path("results") / config.name
    known = recorded(study)
    if known is None or written(known, folder) is None:
        check_replaceable(folder, config.name)  # now, and not after the search
    if known is None and live.to_search(database, study):
        with placed(request, database, [config_of(study)], checkpoints) as place:
            options = WorkerOptions(lanes=lane_count, workers=place.workers, lease=lease)
            command = worker_command(study.name, options, threads, place.checkpoints)
            live.search(database, study, config, console, options, command, place.launch)
    with live.final_progress(console) as progress:
        conclusion = conclude(database, study, folder, progress)
    show_result(database, study, conclusion, console, as_json)


def submit(study_file: StudyFile, storage: Storage = DEFAULT_STORAGE) -> None:
    """Register a study for workers to search. Submitting the same one again changes nothing."""
    from hpo.studyfile import load_study

    config = load_study(study_file)
    console = make_console()
    study = _submit(opened(storage), config, console)
    say(console, f"{study.name}: {config.trials} trials; search them with `hpo worker {study.name}`")


def _submit(database: "Database", config: "StudyConfig", console: "Console") -> "StudyRecord":
    from hpo.data.prepare import prepare
    from hpo.search.studies import Studies
    from hpo.search.submission import data_facts
    from hpo.search.submission import submit as submit_study

    prepared = prepare(config)
    for finding in prepared.findings:
        say(console, f"data: {finding.text}")
    say(console, "data: rows: " + ", ".join(f"{count} {part}" for part, count in prepared.sizes.items()))
    return submit_study(Studies(database), config, prepared.fingerprint, data_facts(prepared))


def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from hpo.studyfile import json_schema

    print_json(json_schema())
