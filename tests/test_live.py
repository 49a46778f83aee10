"""A study as it is watched: where the output is no terminal, plain lines, and none without news."""

import io
import itertools
from dataclasses import replace
from typing import Any

import pytest
from conftest import study_of
from rich.console import Console
from searching import search, submitted

from hpo import live, terminal
from hpo.search.database import Database
from hpo.search.status import Status, StatusReader
from hpo.search.store import Store

STUDY = """
search: {learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
sampler: random
trials: 3
training: {epochs: 1}
"""


def watched(database: Database, **options: Any) -> str:
    config, out = study_of(STUDY), io.StringIO()
    live.watch(database, submitted(database, config), config, Console(file=out, width=80, **options))
    return out.getvalue()


def test_in_a_pipe_a_searched_study_is_one_plain_line(sqlite: Database) -> None:
    search(sqlite, study_of(STUDY))
    text = watched(sqlite)
    assert text.count("\n") == 1 and "\x1b" not in text
    assert text.startswith("test: 3/3 finished (3 complete, 0 pruned, 0 failed), 0 running, best 0.")


def test_in_a_terminal_the_view_goes_and_the_line_stays(sqlite: Database) -> None:
    search(sqlite, study_of(STUDY))
    text = watched(sqlite, force_terminal=True)
    assert "progress" in text and "\x1b[?25l" in text
    assert text.rstrip().rpartition("\n")[2].endswith("(trial 0)") or "test: 3/3 finished" in text
    assert text.rindex("\x1b[2K") < text.index("test: 3/3 finished")


def test_no_line_is_printed_while_only_the_pace_changes(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PLAIN", 0.0)
    config = study_of(STUDY)
    study = submitted(sqlite, config)
    store, reader, out = Store(sqlite), StatusReader(sqlite, study), io.StringIO()
    look = live._plain(reader, Console(file=out, width=80))
    seconds = itertools.count()
    read = reader.read

    def later() -> Status:
        status = read()
        return replace(status, pace=replace(status.pace, lately=1000.0 + next(seconds)))

    monkeypatch.setattr(reader, "read", later)
    for _ in range(3):
        look()
    store.claim(study.study_id, "w", {}, 2, 10)
    for _ in range(3):
        look()
    lines = out.getvalue().splitlines()
    assert [line.partition("), ")[2] for line in lines] == [
        "0 running",
        "2 running, 1,003 trials per hour",
    ]
    assert terminal.status_line(read()).startswith("test: 0/3 finished")
