"""When a worker process is to stop: on a signal, or when the launcher that started it is gone."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from hpo.search.processes import LAUNCHER


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, and the end of the launcher that started this process."""
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    launcher = os.environ.get(LAUNCHER)
    if launcher is not None:
        threading.Thread(target=_follow, args=(int(launcher), stop), name="launcher", daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _follow(launcher: int, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        if os.getppid() != launcher:
            stop.set()
            # It read what this process prints: a write to its closed pipe would raise.
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
                os.dup2(nowhere.fileno(), sys.stderr.fileno())
