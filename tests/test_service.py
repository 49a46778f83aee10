"""A worker that stays: every study of a database is searched and finalized, whenever it is submitted."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Desk, eventually
from conftest import study_of
from searching import search, submitted

from hpo.results import service as service_module
from hpo.results.conclude import OPENINGS, recorded
from hpo.results.place import FINALIZER
from hpo.results.service import Service
from hpo.search.database import Database
from hpo.search.running import WorkerOptions
from hpo.search.studies import Studies

TEXT = (
    "data: {source: sklearn, name: wine}\nsearch: {dropout: {low: 0.0, high: 0.5}}\nsampler: random\n"
    "options: {width: 8, depth: 1}\ntrials: 2\ntraining: {epochs: 2, batch_size: 64}\n"
    "final: {top: 1, seeds: 1}\n"
)


@contextmanager
def serving(database: Database, out: Path) -> Iterator[list[str]]:
    """A service in a thread of its own; answers what it says."""
    said: list[str] = []
    stop = threading.Event()
    options = WorkerOptions(lanes=2, poll=0.05)
    thread = threading.Thread(
        target=Service(database, options, out, out / "checkpoints", said.append).run, args=(stop,)
    )
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "PAUSE", 0.05)


def is_finalized(database: Database, name: str) -> Callable[[], bool]:
    return lambda: recorded(Studies(database).study(name)) is not None


@pytest.mark.slow
def test_studies_are_searched_and_finalized_whenever_they_are_submitted(
    sqlite: Database, tmp_path: Path
) -> None:
    submitted(sqlite, study_of(f"name: early\n{TEXT}"))
    with serving(sqlite, tmp_path) as said:
        eventually(is_finalized(sqlite, "early"))
        submitted(sqlite, study_of(f"name: late\n{TEXT}"))
        eventually(is_finalized(sqlite, "late"))
    assert [line.partition(",")[0] for line in said] == [
        "early: searching",
        "early: finalized",
        "late: searching",
        "late: finalized",
    ]
    assert (tmp_path / "late" / "metrics.json").is_file()


@pytest.mark.slow
def test_what_a_study_cannot_be_served_for_is_said_once_and_the_others_are_served(
    sqlite: Database, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(60)))
    data = "data: {source: csv, path: table.csv, target: y}"
    submitted(
        sqlite, study_of(f"name: gone\n{TEXT.replace('data: {source: sklearn, name: wine}', data)}", tmp_path)
    )
    kept = table.read_text()
    table.unlink()
    submitted(sqlite, study_of(f"name: there\n{TEXT}"))
    with serving(sqlite, tmp_path) as said:
        eventually(is_finalized(sqlite, "there"))
        time.sleep(0.3)
        assert [line for line in said if line.startswith("gone") and "table.csv" in line]
        assert len([line for line in said if line.startswith("gone: data")]) <= 1
    table.write_text(kept)
    with serving(sqlite, tmp_path):
        eventually(is_finalized(sqlite, "gone"))


@pytest.mark.slow
def test_a_study_that_another_process_finalizes_or_that_was_opened_without_a_result_is_left_alone(
    sqlite: Database, tmp_path: Path
) -> None:
    for name in ("theirs", "opened"):
        search(sqlite, study_of(f"name: {name}\n{TEXT}"))
    studies = Studies(sqlite)
    theirs = studies.study("theirs").study_id
    studies.claim_attr(theirs, FINALIZER, {"host": "elsewhere", "pid": 1, "id": "x", "beat": 0})
    studies.set_attrs(studies.study("opened").study_id, {OPENINGS: [{"time": "then"}]})
    with serving(sqlite, tmp_path) as said:
        time.sleep(0.5)
        assert not is_finalized(sqlite, "theirs")() and said == []
        studies.drop_attr(theirs, FINALIZER, studies.study("theirs").attrs[FINALIZER])
        eventually(is_finalized(sqlite, "theirs"))
    assert not is_finalized(sqlite, "opened")()


@pytest.mark.slow
def test_the_command_stays_until_it_is_told_to_stop(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.study(f"name: served\n{TEXT}")
    desk.hpo("db", "init")
    with desk.started("worker", "--stay", "--out", "finished") as process:
        desk.hpo("submit", "study.yaml")
        eventually((tmp_path / "finished" / "served" / "metrics.json").exists)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "served: finalized, results in" in output and "Traceback" not in output
    message = desk.hpo("worker", "served", "--stay", code=2).stderr
    assert "a worker that stays serves every study; leave out served" in message
