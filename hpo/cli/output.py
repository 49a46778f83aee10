"""Where commands print to."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    from rich.console import Console


def make_console(stderr: bool = False) -> "Console":
    """Where people read; with --json that is stderr, since stdout is for the program that reads it."""
    from rich.console import Console

    log_to_stderr()
    return Console(stderr=stderr, highlight=False)


def log_to_stderr() -> None:
    """What the program notices, as lines with a time."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def say(console: "Console", line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, markup=False, soft_wrap=True)


def print_json(content: Any) -> None:
    """Print one line for a program to read."""
    print(json.dumps(content))


def refuse_folder(out: Path | None, such_as: str) -> None:
    """Before the work: a page cannot be written where a folder is.

    Raises:
        UsageError: `out` is one.
    """
    if out is not None and out.is_dir():
        raise UsageError(f"--out: {out} is a folder; must be a file, such as {out / such_as}")


def write_page(out: Path, html: str) -> None:
    """Write a page beside `out`, and rename it.

    Raises:
        HpoError: it cannot be written.
    """
    beside = out.with_name(f".{out.name}.new")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(html, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise HpoError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
