"""The command that shows studies in a browser, and the one that sets its password."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Storage
from hpo.cli.output import log_to_stderr, make_console, say
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.search.database import Database
    from hpo.web.guard import Access
    from hpo.web.password import Hash
    from hpo.web.storage import View

User = Annotated[str, typer.Option(envvar="HPO_DASHBOARD_USER", help="User name of the login.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        envvar="HPO_DASHBOARD_PASSWORD_FILE",
        help="File with the password's hash, mode 600. HPO_DASHBOARD_PASSWORD_HASH may hold the hash itself.",
        show_default="~/.config/hpo/dashboard-password",
    ),
]

NICENESS = 10
"""Of the process: workers on the same machine come first."""

dashboard = typer.Typer(invoke_without_command=True)


@dashboard.callback()
def serve(
    context: typer.Context,
    storage: Storage = DEFAULT_STORAGE,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but loopback needs a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    user: User = "hpo",
    password_file: PasswordFile = None,
    url: Annotated[
        list[str] | None,
        typer.Option(help="URL under which browsers reach it, of a reverse proxy say; may be repeated."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            help="Address of the reverse proxy, believed when it says who the client is; * for any."
        ),
    ] = None,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Allow notes, and deleting studies that do not run.")
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open it in the browser of this machine.")
    ] = False,
) -> None:
    """Show studies in a browser: optuna-dashboard, read-only unless told otherwise."""
    if context.invoked_subcommand is not None:
        return
    from hpo.search.database import Database
    from hpo.web.app import application
    from hpo.web.login import Account
    from hpo.web.password import known_hash
    from hpo.web.server import serving

    log_to_stderr()
    os.nice(NICENESS)
    password = known_hash(password_file)
    _refuse_open(host, password)
    access = _access(host, url or [], allow_writes)
    account = None if password is None else Account(user, password)
    with Database(storage, patience=2.0, read_only=True) as database:
        if not database.has_schema():
            raise UsageError(f"{database}: nothing of hpo's is in there yet; `hpo db init` makes its tables")
        database.create_schema()  # refuses those of another version
        view = _view(database, storage, allow_writes)
        with serving(application(view, access, account), host, port, proxy) as server:
            _tell(host, server.effective_port, account is not None, allow_writes, open_browser)
            server.run()


def _view(database: "Database", storage: str, writes: bool) -> "View":
    from hpo.search.database import Database
    from hpo.web.storage import View
    from hpo.web.writing import WritableView

    return WritableView(database, Database(storage, patience=2.0)) if writes else View(database)


def _refuse_open(host: str, password: "Hash | None") -> None:
    from hpo.web.guard import LOOPBACK

    if password is None and host not in LOOPBACK:
        raise UsageError(
            f"--host {host}: others can reach it there, so it needs a password: `hpo dashboard set-password` "
            "asks for one; or leave out --host, and reach it through an ssh tunnel"
        )


def _access(host: str, urls: list[str], writes: bool) -> "Access":
    """Who may ask for what.

    Raises:
        UsageError: one of `urls` is none.
    """
    from urllib.parse import urlsplit

    from hpo.web.guard import Access

    parts = {url: urlsplit(url) for url in urls}
    for url, part in parts.items():
        if part.scheme not in {"http", "https"} or not part.hostname or part.path.strip("/"):
            raise UsageError(f"--url {url}: must be like https://hpo.example.org, without a path")
    names = {part.hostname for part in parts.values() if part.hostname}
    secure = {part.hostname for part in parts.values() if part.hostname and part.scheme == "https"}
    return Access(frozenset(names | {host}), frozenset(secure), writes)


def _tell(host: str, port: int, login: bool, writes: bool, open_browser: bool) -> None:
    reached = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)
    place = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    allowed = "notes and deletions allowed" if writes else "read-only"
    say(make_console(), f"hpo dashboard: {place} ({allowed}, {'with' if login else 'without'} a login)")
    if open_browser:
        typer.launch(place)


@dashboard.command("set-password")
def set_password(
    password_file: PasswordFile = None,
    print_hash: Annotated[
        bool, typer.Option("--print", help="Print the hash, for HPO_DASHBOARD_PASSWORD_HASH; write no file.")
    ] = False,
) -> None:
    """Set the dashboard's password: asked for, or the first line of what is piped in."""
    from hpo.web.password import SHORTEST, Hash, default_file, write_hash

    password = _asked()
    if len(password) < SHORTEST:
        raise UsageError(f"the password must have {SHORTEST} characters or more, not {len(password)}")
    if print_hash:
        print(Hash.of(password))
        return
    path = password_file or default_file()
    write_hash(password, path)
    say(make_console(), f"{path}: written; a dashboard that runs takes it when it is started again")


def _asked() -> str:
    import getpass
    import sys

    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UsageError("the two passwords differ")
    return password
