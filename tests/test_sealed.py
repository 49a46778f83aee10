"""A whole `hpo run` is watched, every process of it: no search process opens the test part."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Desk

WATCH = """
import os, sys, time
import safetensors


def tell(how, path):
    if os.path.basename(os.fsdecode(path)) == "test.safetensors":
        line = f"{how} {os.getpid()} {time.time()} {os.fsdecode(path)}\\n"
        log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, line.encode())
        os.close(log)


def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        tell("open", arguments[0])


really = safetensors.safe_open


def safe_open(path, *arguments, **options):  # Rust opens files without telling Python's hooks
    tell("read", path)
    return really(path, *arguments, **options)


safetensors.safe_open = safe_open
sys.addaudithook(hook)
"""
NETWORK = """
import os
from pathlib import Path
from safetensors.torch import load_file
from torch import nn


def honest(input_shape, classes, hidden=4):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, classes))


def peeping(input_shape, classes, hidden=4):
    for path in Path(os.environ["HPO_CACHE"]).rglob("test.safetensors"):
        load_file(path)
    return honest(input_shape, classes, hidden)
"""
STUDY = """
name: watched
data: {source: sklearn, name: wine}
architecture: network.py:%s
search: {learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}}
training: {epochs: 2, batch_size: 64}
sampler: random
trials: 6
final: {top: 1, seeds: 2}
"""


@dataclass(frozen=True)
class Opening:
    how: str
    process: int
    time: float
    path: str


@dataclass(frozen=True)
class Watched:
    """A run, and who opened a file of that name."""

    launcher: int
    workers: set[int]
    searched: float
    """When the last trial ended."""
    openings: list[Opening]

    @property
    def sealed(self) -> list[Opening]:
        """Of the file in the cache, not where it is written: in a folder that begins with a dot."""
        return [opening for opening in self.openings if not Path(opening.path).parent.name.startswith(".")]


def watched(folder: Path, network: str) -> Watched:
    desk = Desk(folder)
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    (folder / "network.py").write_text(NETWORK)
    desk.study(STUDY % network)
    paths = [str(folder / "watch"), *filter(None, [os.environ.get("PYTHONPATH")])]
    desk.environment |= {"PYTHONPATH": os.pathsep.join(paths), "OPENED": str(folder / "opened.log")}
    with desk.started("run", "study.yaml", "--workers", "2", "--lanes", "3") as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    lines = [line.split(" ", 3) for line in (folder / "opened.log").read_text().splitlines()]
    trials = desk.optuna("watched").trials
    return Watched(
        launcher=process.pid,
        workers={int(trial.user_attrs["worker"].split("-")[-2]) for trial in trials},
        searched=max(trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete),
        openings=[Opening(how, int(pid), float(at), path) for how, pid, at, path in lines],
    )


@pytest.mark.slow
def test_the_test_part_is_opened_once_by_the_process_that_finalizes_after_the_search(tmp_path: Path) -> None:
    run = watched(tmp_path, "honest")
    assert run.workers and run.launcher not in run.workers
    assert [opening.how for opening in run.sealed] == ["open", "read"], "hashed, and read"
    assert {opening.process for opening in run.openings} == {run.launcher}
    assert all(opening.time > run.searched for opening in run.sealed)


@pytest.mark.slow
def test_a_worker_that_opened_it_would_be_noticed(tmp_path: Path) -> None:
    run = watched(tmp_path, "peeping")
    assert run.workers & {opening.process for opening in run.sealed}
    assert any(opening.time < run.searched for opening in run.sealed)
