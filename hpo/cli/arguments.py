"""What several commands take, and what it stands for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.output import log_to_stderr
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.search.database import Database

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
Png = Annotated[
    Path | None,
    typer.Option(
        "--png",
        metavar="FOLDER",
        help="Also write each figure as a PNG there (needs hpo[images] and Chrome).",
    ),
]
Svg = Annotated[
    Path | None,
    typer.Option("--svg", metavar="FOLDER", help="Also write each figure as an SVG there (likewise)."),
]
Threads = Annotated[int, typer.Option(min=1, help="Torch threads of a process.")]
Out = Annotated[Path | None, typer.Option(help="Results folder.", show_default="results/STUDY")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Run the workers on a Ray cluster: host:port; auto, the one of this machine; without an address "
        "RAY_ADDRESS, or a new one on this machine alone.",
        show_default="processes of this machine",
    ),
]
Cpus = Annotated[
    float | None,
    typer.Option("--cpus-per-worker", min=0.1, help="Of a Ray node, for each worker.", show_default="1"),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker", min=0, help="Of a Ray node, for each worker: 0.25, say.", show_default="0"
    ),
]

DEFAULT_STORAGE = "sqlite:///hpo.db"


def opened(storage: str, create: bool = True, patient: bool = False) -> "Database":
    """The database, with its tables.

    Args:
        storage: Its URL.
        create: Whether to make them where there are none.
        patient: Whether also the first connection waits for a database that is away for the moment.

    Raises:
        UsageError: the URL is none, or there are no tables.
    """
    from hpo.search.database import Database

    log_to_stderr()  # it says so when the database does not answer
    database = Database(storage)
    database.connected = patient
    if not create and not database.has_schema():
        raise UsageError(f"{database}: nothing of hpo's is in there yet; `hpo db init` makes its tables")
    if not patient:
        database.create_schema()  # refuses those of another version
    return database


def lanes_of(text: str) -> int | None:
    """How many lanes; None for auto.

    Raises:
        UsageError: `text` is neither that nor a number.
    """
    if text == "auto":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--lanes: {text!r}: must be auto or a whole number, 1 or more")


def name_of(study: str) -> str:
    """The name of a study that is given by it, or by its study file.

    Raises:
        StudyFileError: the file has mistakes.
    """
    if not study.endswith((".yaml", ".yml")):
        return study
    from hpo.studyfile import load_study

    return load_study(Path(study)).name
