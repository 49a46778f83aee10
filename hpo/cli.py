"""Every command: the only place that reads argv or prints. Heavy imports wait until a command needs them."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from hpo.config import StudyConfig
    from hpo.results.conclude import Conclusion
    from hpo.search.database import Database
    from hpo.search.records import StudyRecord


class _Group(TyperGroup):
    """Errors as one clear message, with the exit codes that the README lists."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HpoError as error:
            print(f"hpo: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            print("hpo: interrupted, nothing is lost; the same command goes on from here", file=sys.stderr)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Group,
    name="hpo",
    help="Hyperparameter optimization for PyTorch: search, retrain, test once, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="The database that studies are stored in.", no_args_is_help=True)
app.add_typer(db, name="db")

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name, or its study file.")]
Storage = Annotated[
    str,
    typer.Option(
        envvar="HPO_STORAGE",
        help="Database URL: sqlite:///file.db or postgresql://user@host/db. Put a URL with a password "
        "into HPO_STORAGE rather than here.",
        show_envvar=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes.", show_default="half the cores, at least 1")
]
Lanes = Annotated[
    str,
    typer.Option(metavar="K|auto", help="Models that a worker trains at once; auto measures what pays."),
]
Lease = Annotated[
    float, typer.Option(min=1, help="Seconds after which a worker that gives no sign of life counts as dead.")
]
Shared = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        help="Folder that workers share, so that one can go on with another's trials.",
        show_default="beside the SQLite file, else ./checkpoints",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Torch threads of a process.")]
Out = Annotated[Path | None, typer.Option(help="Results folder.", show_default="results/STUDY")]

DEFAULT_STORAGE = "sqlite:///hpo.db"


@app.command()
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
) -> None:
    """Search a study with parallel workers, retrain and test its winner, export it.

    Run it again to go on where it was interrupted; once finished, it prints its recorded result.
    """
    import torch

    from hpo import live
    from hpo.results.conclude import conclude, recorded
    from hpo.results.export import check_replaceable
    from hpo.search.running import WorkerOptions
    from hpo.studyfile import load_study

    console = _console(as_json)
    torch.set_num_threads(threads)
    config = load_study(study_file)
    database = _open(storage)
    study = _submit(database, config, console)
    folder = out or Path("results") / config.name
    if recorded(study) is None:
        check_replaceable(folder, config.name)  # now, and not after the search
        count = workers or max(1, (os.cpu_count() or 1) // 2)
        options = WorkerOptions(lanes=_lanes(lanes), workers=count, lease=lease)
        live.search(database, study, config, console, options, threads, checkpoints)
    with live.final_progress(console) as progress:
        conclusion = conclude(database, study, folder, progress)
    _show_result(database, study, conclusion, console, as_json)


@app.command()
def submit(study_file: StudyFile, storage: Storage = DEFAULT_STORAGE) -> None:
    """Register a study for workers to search. Submitting the same one again changes nothing."""
    from hpo.studyfile import load_study

    console = _console()
    config = load_study(study_file)
    study = _submit(_open(storage), config, console)
    _say(console, f"{study.name}: {config.trials} trials; search them with `hpo worker {study.name}`")


@app.command()
def worker(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="By default any open study.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    lanes: Lanes = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Workers that share the trials in flight.")] = 1,
    threads: Threads = 1,
    lease: Lease = 30.0,
    checkpoints: Shared = None,
) -> None:
    """Claim and train trials until every trial has finished. Start as many as you like, anywhere."""
    import torch

    from hpo.search.launch import LAUNCHER, open_studies, serve, stop_on_signals
    from hpo.search.running import WorkerOptions

    _console()
    torch.set_num_threads(threads)
    database = _open(storage, create=False, patient=LAUNCHER in os.environ)
    options = WorkerOptions(lanes=_lanes(lanes), workers=workers, lease=lease)
    served = 0
    with stop_on_signals() as stop:
        for record in open_studies(database, _study_name(study) if study else None, stop):
            try:
                serve(database, record, options, stop, checkpoints)
            except UsageError as error:  # of this study: its data are not here, say
                if study is not None:
                    raise
                print(f"hpo: {record.name}: {error}", file=sys.stderr)
            else:
                served += 1
        if not served:
            _say(_console(), f"{database}: no study with trials to claim")
        if stop.is_set() and LAUNCHER in os.environ:  # which tells the user itself
            raise typer.Exit(130)
        if stop.is_set():
            raise KeyboardInterrupt


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="By default all studies.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the study has finished.")] = False,
    as_json: Json = False,
) -> None:
    """Show how studies stand."""
    from hpo import live, terminal
    from hpo.search.status import StatusReader
    from hpo.search.studies import Studies
    from hpo.search.submission import config_of

    database = _open(storage, create=False)
    studies = Studies(database)
    records = [studies.study(_study_name(study))] if study else studies.studies()
    if watch:
        if study is None or as_json:
            raise UsageError("--watch needs a STUDY, and goes without --json")
        live.watch(database, records[0], config_of(records[0]), _console())
        return
    states = [StatusReader(database, record).read() for record in records]
    if as_json:
        rows = [state.as_json() for state in states]
        _print_json(rows[0] if study else rows)
        return
    console = _console()
    for state in states:
        _say(console, f"{terminal.status_line(state)} [{state.state}]")
    if not states:
        _say(console, f"{database}: no studies yet")


@app.command()
def stop(study: StudyName, storage: Storage = DEFAULT_STORAGE) -> None:
    """Let workers finish the trials that they hold and claim no more."""
    _set_stopped(study, storage, True)


@app.command()
def resume(study: StudyName, storage: Storage = DEFAULT_STORAGE) -> None:
    """Let workers claim a stopped study's trials again."""
    _set_stopped(study, storage, False)


@app.command()
def extend(
    study: StudyName,
    trials: Annotated[int, typer.Option(min=1, help="Trials to add.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Add trials to a study's budget. A result recorded before is kept, but no longer stands."""
    from hpo.search.studies import Studies
    from hpo.search.submission import extend as extend_study

    studies = Studies(_open(storage, create=False))
    record = studies.study(_study_name(study))
    total = extend_study(studies, record, trials)
    _say(_console(), f"{record.name}: {total} trials now")


@app.command()
def finalize(
    study: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    threads: Threads = 1,
    out: Out = None,
    again: Annotated[
        bool, typer.Option("--again", help="Although it was done: opens the test set again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-evaluate the best trials, retrain the winner, test it once, write the results folder."""
    import torch

    from hpo import live
    from hpo.results.conclude import conclude, recorded
    from hpo.search.studies import Studies

    console = _console(as_json)
    torch.set_num_threads(threads)
    database = _open(storage, create=False)
    record = Studies(database).study(_study_name(study))
    if recorded(record) is not None and not again:
        raise HpoError(f"study {record.name!r} is finalized; --again opens its test set once more")
    with live.final_progress(console) as progress:
        conclusion = conclude(database, record, out or Path("results") / record.name, progress, again)
    _show_result(database, record, conclusion, console, as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from hpo.studyfile import json_schema

    _print_json(json_schema())


@db.command("init")
def db_init(storage: Storage = DEFAULT_STORAGE) -> None:
    """Make the tables, if they are not there."""
    database = _open(storage)
    _say(_console(), f"{database}: ready")


@db.command("status")
def db_status(storage: Storage = DEFAULT_STORAGE) -> None:
    """Tell whether the database can be used, and what is in it."""
    from hpo.search.studies import Studies

    database = _open(storage, create=False)
    studies = Studies(database).studies()
    _say(_console(), f"{database}: ready, {len(studies)} studies")


@db.command("upgrade")
def db_upgrade(storage: Storage = DEFAULT_STORAGE) -> None:
    """Bring tables of an earlier version up to date, while no worker is at work."""
    from hpo.search.database import Database

    database = Database(storage)
    database.upgrade_schema()
    _say(_console(), f"{database}: up to date")


# --- behind the commands


def _open(storage: str, create: bool = True, patient: bool = False) -> "Database":
    """`patient`: also the first connection waits for a database that is away for the moment."""
    from hpo.search.database import Database

    database = Database(storage)
    database.connected = patient
    if create:
        database.create_schema()
    elif not database.has_schema():
        raise UsageError(f"{database}: nothing of hpo's is in there yet; `hpo db init` makes its tables")
    return database


def _lanes(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--lanes: {text!r}: must be auto or a whole number, 1 or more")


def _study_name(study: str) -> str:
    if not study.endswith((".yaml", ".yml")):
        return study
    from hpo.studyfile import load_study

    return load_study(Path(study)).name


def _submit(database: "Database", config: "StudyConfig", console: "Console") -> "StudyRecord":
    from hpo.data.prepare import prepare
    from hpo.search.studies import Studies
    from hpo.search.submission import submit as submit_study

    prepared = prepare(config)
    for finding in prepared.findings:
        _say(console, f"data: {finding.text}")
    _say(console, "data: rows: " + ", ".join(f"{count} {part}" for part, count in prepared.sizes.items()))
    return submit_study(Studies(database), config, prepared.fingerprint)


def _show_result(
    database: "Database", study: "StudyRecord", conclusion: "Conclusion", console: "Console", as_json: bool
) -> None:
    from hpo import terminal
    from hpo.search.status import StatusReader
    from hpo.search.submission import config_of

    status = StatusReader(database, study).read()
    if as_json:
        _print_json(terminal.run_json(status, conclusion))
        return
    _say(console, terminal.status_line(status))
    console.print(terminal.winner(conclusion, config_of(study)))
    _say(console, f"Results and report: {conclusion.out}")


def _set_stopped(study: str, storage: str, stopped: bool) -> None:
    from hpo.search.status import STOPPED
    from hpo.search.studies import Studies

    studies = Studies(_open(storage, create=False))
    record = studies.study(_study_name(study))
    studies.set_attrs(record.study_id, {STOPPED: stopped})
    _say(_console(), f"{record.name}: {'stopped' if stopped else 'open'}")


def _console(stderr: bool = False) -> "Console":
    """Where people read; with --json that is stderr, since stdout is for the program that reads it."""
    import structlog
    from rich.console import Console

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return Console(stderr=stderr, highlight=False)


def _say(console: "Console", line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _print_json(content: Any) -> None:
    print(json.dumps(content))


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: workers hand their trials back
    app()


if __name__ == "__main__":
    main()
