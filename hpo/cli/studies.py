"""Commands about studies in the database."""

from typing import Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Storage, StudyName, name_of, opened
from hpo.cli.output import make_console, print_json, say
from hpo.errors import UsageError


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

    database = opened(storage, create=False)
    studies = Studies(database)
    records = [studies.study(name_of(study))] if study else studies.studies()
    if watch:
        if study is None or as_json:
            raise UsageError("--watch needs a STUDY, and goes without --json")
        live.watch(database, records[0], config_of(records[0]), make_console())
        return
    states = [StatusReader(database, record).read() for record in records]
    if as_json:
        rows = [state.as_json() for state in states]
        print_json(rows[0] if study else rows)
        return
    console = make_console()
    for state in states:
        say(console, f"{terminal.status_line(state)} [{state.state}]")
    if not states:
        say(console, f"{database}: no studies yet")


def stop(study: StudyName, storage: Storage = DEFAULT_STORAGE) -> None:
    """Let workers finish the trials that they hold and claim no more."""
    _set_stopped(study, storage, True)


def resume(study: StudyName, storage: Storage = DEFAULT_STORAGE) -> None:
    """Let workers claim a stopped study's trials again."""
    _set_stopped(study, storage, False)


def _set_stopped(study: str, storage: str, stopped: bool) -> None:
    from hpo.search.status import STOPPED
    from hpo.search.studies import Studies

    studies = Studies(opened(storage, create=False))
    record = studies.study(name_of(study))
    studies.set_attrs(record.study_id, {STOPPED: stopped})
    say(make_console(), f"{record.name}: {'stopped' if stopped else 'open'}")


def extend(
    study: StudyName,
    trials: Annotated[int, typer.Option(min=1, help="Trials to add.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Add trials to a study's budget. A result recorded before is kept, but no longer stands."""
    from hpo.search.studies import Studies
    from hpo.search.submission import extend as extend_study

    studies = Studies(opened(storage, create=False))
    record = studies.study(name_of(study))
    total = extend_study(studies, record, trials)
    say(make_console(), f"{record.name}: {total} trials now")
