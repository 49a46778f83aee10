"""Commands about the database itself."""

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Storage, opened
from hpo.cli.output import make_console, say

db = typer.Typer(help="The database that studies are stored in.", no_args_is_help=True)


@db.command("init")
def init(storage: Storage = DEFAULT_STORAGE) -> None:
    """Make the tables, if they are not there."""
    database = opened(storage)
    say(make_console(), f"{database}: ready")


@db.command("status")
def status(storage: Storage = DEFAULT_STORAGE) -> None:
    """Tell whether the database can be used, and what is in it."""
    from hpo.search.studies import Studies

    database = opened(storage, create=False)
    studies = Studies(database).studies()
    say(make_console(), f"{database}: ready, {len(studies)} studies")


@db.command("upgrade")
def upgrade(storage: Storage = DEFAULT_STORAGE) -> None:
    """Bring tables of an earlier version up to date, while no worker is at work."""
    from hpo.search.database import Database

    database = Database(storage)
    database.upgrade_schema()
    say(make_console(), f"{database}: up to date")
