"""Where commands print to."""

import json
import sys
from typing import TYPE_CHECKING, Any

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
