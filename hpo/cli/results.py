"""The command that tests the winner, and what it and `run` show in the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Out, Storage, StudyName, Threads, name_of, opened
from hpo.cli.output import make_console, print_json, say
from hpo.errors import HpoError

if TYPE_CHECKING:
    from rich.console import Console

    from hpo.results.conclude import Conclusion
    from hpo.search.database import Database
    from hpo.search.records import StudyRecord


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
    """Re-evaluate the best trials, retrain the winner, test it once, write the results folder.

    If only the folder is missing, the winner is retrained to write it, and the test set stays closed.
    """
    name = name_of(study)

    import torch

    from hpo import live
    from hpo.results.conclude import conclude, recorded, written
    from hpo.search.studies import Studies

    console = make_console(as_json)
    torch.set_num_threads(threads)
    database = opened(storage, create=False)
    record = Studies(database).study(name)
    folder = out or Path("results") / record.name
    known = recorded(record)
    if known is not None and written(known, folder) and not again:
        raise HpoError(f"study {record.name!r} is finalized; --again opens its test set once more")
    with live.final_progress(console) as progress:
        conclusion = conclude(database, record, folder, progress, again)
    show_result(database, record, conclusion, console, as_json)


def show_result(
    database: "Database", study: "StudyRecord", conclusion: "Conclusion", console: "Console", as_json: bool
) -> None:
    """The winner and where its results lie; with `as_json` for the program that reads it."""
    from hpo import terminal
    from hpo.cli import winner
    from hpo.search.status import StatusReader
    from hpo.search.submission import config_of

    status = StatusReader(database, study).read()
    config = config_of(study)
    if as_json:
        print_json(winner.run_json(status, conclusion, config))
        return
    say(console, terminal.status_line(status))
    console.print(winner.shown(conclusion, config))
    say(console, f"Results and report: {conclusion.out}")
