"""Concluding a study: one result, recorded once, whose folder can always be written."""

import contextlib
import io
import itertools
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import WARM
from conftest import study_of
from rich.console import Console
from safetensors.torch import load_file
from searching import search

from hpo.cli import winner
from hpo.errors import HpoError
from hpo.results import baselines as baselines_module
from hpo.results import conclude as conclude_module
from hpo.results import finalize as finalize_module
from hpo.results import place as place_module
from hpo.results.bundle_folder import FILES, MANIFEST
from hpo.results.conclude import OPENINGS, Conclusion, conclude, recorded
from hpo.results.export import is_complete
from hpo.results.place import FINALIZER
from hpo.search.database import Database
from hpo.search.status import RESULT
from hpo.search.studies import Studies
from hpo.search.submission import EARLIER_RESULTS, extend

CONFIG = study_of(
    "name: wines\ndata: {source: sklearn, name: wine}\nsearch: {dropout: {low: 0.0, high: 0.5}}\n"
    "options: {width: 8, depth: 1}\nsampler: random\ntrials: 3\n"
    "training: {epochs: 2, batch_size: 64}\nfinal: {top: 1, seeds: 2}"
)
WRITTEN = set(FILES) - {"architecture.py", "model.onnx"}


@pytest.fixture
def searched(sqlite: Database) -> Database:
    search(sqlite, CONFIG)
    return sqlite


def concluded(database: Database, out: Path, **how: Any) -> Conclusion:
    return conclude(database, Studies(database).study(CONFIG.name), out, **how)


def attrs(database: Database) -> dict[str, Any]:
    return Studies(database).study(CONFIG.name).attrs


def texts(out: Path) -> list[str]:
    return [(out / name).read_text() for name in ("metrics.json", "labels.json", "best.yaml")]


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it makes opening the test part a failure."""

    def opened(*_: Any) -> None:
        raise AssertionError("the test part was opened")

    return lambda: monkeypatch.setattr(finalize_module, "open_sealed", opened)


@pytest.mark.slow
def test_a_folder_that_is_gone_or_not_complete_is_written_again_with_the_test_part_sealed(
    searched: Database, tmp_path: Path, sealed: Callable[[], None]
) -> None:
    out = tmp_path / "results" / "wines"
    first = concluded(searched, out)
    content, weights = texts(out), load_file(out / "model.safetensors")
    assert {path.name for path in out.iterdir()} == WRITTEN
    sealed()
    for name in (None, "model.safetensors", "report.html", "metrics.json"):
        if name is None:
            shutil.rmtree(out)
        else:
            (out / name).unlink()
        assert concluded(searched, out) == first
        assert texts(out) == content
        again = load_file(out / "model.safetensors")
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[tensor], weights[tensor]) for tensor in weights)
    assert len(attrs(searched)[OPENINGS]) == 1


@pytest.mark.slow
def test_an_opening_is_recorded_with_its_time_configuration_and_result_and_so_is_a_second_one(
    searched: Database, tmp_path: Path
) -> None:
    first = concluded(searched, tmp_path / "out")
    again = concluded(searched, tmp_path / "out", again=True)
    openings = attrs(searched)[OPENINGS]
    assert [opening["config"] for opening in openings] == [CONFIG.digest()] * 2
    assert tuple(opening["time"] for opening in openings) == again.result.openings
    assert len(first.result.openings) == 1
    for opening, conclusion in zip(openings, (first, again), strict=True):
        assert opening["result"]["test"] == conclusion.result.test.scalars()
        assert opening["result"]["winner"] == conclusion.result.winner.number
    assert "this was opening 2 of them" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_a_result_of_an_earlier_version_still_loads(searched: Database, tmp_path: Path) -> None:
    concluded(searched, tmp_path / "out")
    study = Studies(searched).study(CONFIG.name)
    stored = study.attrs[RESULT]
    for key in ("baselines", "fresh_seeds"):
        del stored["result"][key]
    for key in ("calibration", "intervals"):
        del stored["result"]["test"][key]
    for spread in stored["result"]["seeds"].values():
        del spread["interval"]
    Studies(searched).set_attrs(study.study_id, {RESULT: stored})
    known = recorded(Studies(searched).study(CONFIG.name))
    assert known is not None and known.result.baselines == ()
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(winner.shown(known, CONFIG))
    assert "test accuracy" in console.export_text()


@pytest.mark.slow
def test_where_the_recorded_folder_is_not_at_hand_it_is_written_to_where_it_is_wanted(
    searched: Database, tmp_path: Path, sealed: Callable[[], None]
) -> None:
    first = concluded(searched, tmp_path / "here")
    sealed()
    assert concluded(searched, tmp_path / "elsewhere") == first, "it is there, complete"
    (tmp_path / "here").rename(tmp_path / "of another machine")
    moved = concluded(searched, tmp_path / "elsewhere")
    assert (moved.result, moved.out) == (first.result, str(tmp_path / "elsewhere"))
    assert recorded(Studies(searched).study("wines")) == moved
    (tmp_path / "of another machine").rename(tmp_path / "here")
    shutil.rmtree(tmp_path / "elsewhere")
    assert concluded(searched, tmp_path / "here") == first


@pytest.mark.slow
def test_a_result_of_a_study_that_was_extended_meanwhile_does_not_count_as_its_result(
    searched: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = finalize_module.open_sealed

    def extended(*arguments: Any) -> Any:
        extend(Studies(searched), Studies(searched).study("wines"), 2)
        return really_open(*arguments)

    monkeypatch.setattr(finalize_module, "open_sealed", extended)
    concluded(searched, tmp_path / "out")
    assert RESULT not in attrs(searched) and len(attrs(searched)[EARLIER_RESULTS]) == 1
    assert len(search(searched, CONFIG)) == 5


@pytest.mark.slow
def test_two_at_once_open_the_test_part_once(searched: Database, tmp_path: Path) -> None:
    answers: list[Conclusion] = []
    threads = [
        threading.Thread(target=lambda: answers.append(concluded(searched, tmp_path / "out")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1]
    assert len(attrs(searched)[OPENINGS]) == 1


@pytest.mark.slow
def test_the_place_of_a_process_elsewhere_is_taken_once_it_is_silent(
    searched: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "SILENCE", 2.5)
    studies, study = Studies(searched), Studies(searched).study("wines")
    elsewhere = {"host": "elsewhere", "pid": 1, "id": "x", "beat": 0}
    studies.set_attrs(study.study_id, {FINALIZER: elsewhere})
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.3):
            studies.set_attrs(study.study_id, {FINALIZER: elsewhere | {"beat": time.monotonic()}})

    alive = threading.Thread(target=beat)
    alive.start()
    waiting = threading.Thread(target=concluded, args=(searched, tmp_path / "out"))
    waiting.start()
    time.sleep(4)
    assert RESULT not in attrs(searched), "it gave signs of life"
    stop.set()
    alive.join()
    waiting.join(timeout=60)
    assert RESULT in attrs(searched) and FINALIZER not in attrs(searched)


def test_a_process_that_lost_its_place_does_not_open_the_test_part(
    searched: Database, tmp_path: Path, sealed: Callable[[], None]
) -> None:
    sealed()
    studies, study = Studies(searched), Studies(searched).study("wines")

    def robbed(*_: Any) -> None:
        studies.set_attrs(study.study_id, {FINALIZER: {"host": "elsewhere", "pid": 1, "id": "x", "beat": 0}})

    with pytest.raises(HpoError, match="another process finalizes study 'wines'"):
        concluded(searched, tmp_path / "out", progress=robbed)
    assert OPENINGS not in attrs(searched) and attrs(searched)[FINALIZER]["host"] == "elsewhere"


# --- killed at any point


def keep_each_step(file: Path, results: Path, kept: Path) -> None:
    """Before and after each step that changes files in `results` or the study's attributes, copy both.

    That is what there is if this process is killed there.
    """
    points = itertools.count(1)

    def step() -> None:
        point = kept / str(next(points))
        shutil.copytree(results, point / "results")
        with (
            contextlib.closing(sqlite3.connect(file)) as source,
            contextlib.closing(sqlite3.connect(point / "study.db")) as copy,
        ):
            source.backup(copy)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}:
            return
        path = str(arguments[0])
        # Between two other files of a folder it is as between these.
        if path.startswith(str(results)) and path.endswith(("wines", ".new", "best.json", MANIFEST)):
            step()

    for name in ("set_attrs", "change_attrs"):
        setattr(Studies, name, between(step, getattr(Studies, name)))
    sys.addaudithook(audit)


def between(step: Callable[[], None], really: Callable[..., None]) -> Callable[..., None]:
    def stepping(*arguments: Any) -> None:
        step()
        really(*arguments)
        step()

    return stepping


def render_quickly(*_: Any) -> str:
    """In place of the report, which would take half of the time and changes nothing here."""
    return "<title>Report</title>"


def no_baselines(*_: Any) -> list[Any]:
    """They take as long, and change as little."""
    return []


def conclude_step_by_step(file: Path, out: Path, again: bool, kept: Path) -> None:
    conclude_module.render = render_quickly
    baselines_module._kinds = no_baselines
    keep_each_step(file, out.parent, kept)
    with Database(f"sqlite:///{file}") as database:
        concluded(database, out, again=again)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_killed_at_any_point_it_leaves_a_result_whose_folder_can_be_written(
    searched: Database,
    tmp_path: Path,
    sealed: Callable[[], None],
    again: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conclude_module, "render", render_quickly)
    monkeypatch.setattr(baselines_module, "_kinds", no_baselines)
    out = tmp_path / "results" / "wines"
    out.mkdir(parents=True)
    if again:
        concluded(searched, out)
        (out / "notes.txt").write_text("mine")
    before, openings = attrs(searched).get(RESULT), len(attrs(searched).get(OPENINGS, []))
    file, kept = Path(str(searched.url.database)), tmp_path / "kept"
    searched.engine.dispose()
    process = WARM.Process(target=conclude_step_by_step, args=(file, out, again, kept))
    process.start()
    process.join()
    assert process.exitcode == 0
    sealed()
    points = sorted(kept.iterdir(), key=lambda point: int(point.name))
    assert len(points) > 5
    for point in points:
        shutil.rmtree(out.parent)
        shutil.copytree(point / "results", out.parent)
        with Database(f"sqlite:///{point}/study.db") as database:
            check_what_is_left(database, out, before, openings)


def check_what_is_left(database: Database, out: Path, before: Any, openings: int) -> None:
    left = attrs(database)
    opened = len(left.get(OPENINGS, [])) > openings
    if left.get(RESULT) is None:
        with pytest.raises(HpoError if opened else AssertionError, match=r"the test .* was opened"):
            concluded(database, out)
        return
    if left[RESULT] != before:
        assert opened
    answer = concluded(database, out)
    assert is_complete(out, answer.result)
    assert answer.result.openings[-1] == left[RESULT]["result"]["openings"][-1]
    assert len(attrs(database).get(OPENINGS, [])) == len(left[OPENINGS])
    assert {path.name for path in out.iterdir()} - {"notes.txt"} == WRITTEN
    if before is not None:
        assert (out / "notes.txt").read_text() == "mine"
    assert not [path for path in out.parent.rglob("*") if path.is_file() and path.parent != out]
