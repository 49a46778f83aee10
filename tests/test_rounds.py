"""Rounds: how many trials workers take at a time, and that they end together however fast each is."""

import heapq
import threading
from pathlib import Path

import pytest
from checker import Log
from conftest import study_of
from crew import Plan
from faults import study_record
from standin import StandIn

from hpo.search.database import Database
from hpo.search.rounds import next_round
from hpo.search.running import WorkerOptions
from hpo.search.worker import Worker


@pytest.mark.parametrize(
    ("waiting", "most", "expected"),
    [(128, 66, 64), (256, 66, 64), (66, 66, 66), (67, 66, 34), (3, 8, 3), (9, 1, 1), (7, 3, 3), (0, 5, 0)],
)
def test_one_worker_divides_what_waits_into_even_rounds(waiting: int, most: int, expected: int) -> None:
    assert next_round(waiting, 1, most) == expected


@pytest.mark.parametrize(("waiting", "expected"), [(512, 66), (240, 60), (100, 33), (5, 33), (0, 33)])
def test_several_take_half_of_their_part_but_enough_to_pay(waiting: int, expected: int) -> None:
    assert next_round(waiting, 2, 66) == expected


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 1.4), (1.0, 4.0), (1.0, 20.0), (3.0, 2.0, 1.0, 0.2)])
def test_workers_end_together_however_fast_each_is(speeds: tuple[float, ...]) -> None:
    """A round takes as long as 5 trials and those that are in it."""
    trials, most, fixed = 1000, 60, 5
    waiting, ends = trials, [0.0 for _ in speeds]
    idle = [(0.0, worker) for worker in range(len(speeds))]
    while waiting:
        now, worker = heapq.heappop(idle)
        taken = min(waiting, next_round(waiting, len(speeds), most))
        waiting -= taken
        ends[worker] = now + (fixed + taken) / speeds[worker]
        heapq.heappush(idle, (ends[worker], worker))
    least_round = (fixed + most / 2) / min(speeds)
    assert max(ends) - min(ends) <= least_round * 1.5
    assert max(ends) <= trials / sum(speeds) * (1 + 2 * fixed / most) + least_round


def worker_of(database: Database, folder: Path, trials: int, workers: int) -> Worker:
    """One of `workers`, with places for four trials."""
    config = study_of(
        f"name: of-{trials}\nsearch: {{learning_rate: {{low: 0.01, high: 0.1}}}}\nsampler: random\n"
        f"trials: {trials}\ntraining: {{epochs: 3}}"
    )
    study = study_record(database, config)
    training = StandIn(Plan("", config.name, folder, epoch=0.0), Log(folder))
    return Worker(database, study, config, training, WorkerOptions(4, workers, poll=0.0), threading.Event())


def claims(worker: Worker) -> int:
    """How many trials it takes now."""
    before = len(worker.held.running)
    worker._refill()
    return len(worker.held.running) - before


def test_a_worker_leaves_to_the_others_what_they_can_train_meanwhile(
    database: Database, tmp_path: Path
) -> None:
    first = worker_of(database, tmp_path, trials=16, workers=2)
    assert [claims(first), claims(first)] == [4, 0]
    second = worker_of(database, tmp_path, trials=16, workers=1)
    assert claims(second) == 3  # of 12, for it sees the first one
    for _ in range(3):
        first._settle(first._train_epoch())
    assert claims(first) == 3
    while not first._over():
        first._settle(first._train_epoch())
        second._settle(second._train_epoch())
        claims(first), claims(second)
    assert first.held.ends + second.held.ends == 16


def test_what_ends_before_its_round_is_replaced_once_half_of_it_is_gone(
    database: Database, tmp_path: Path
) -> None:
    worker = worker_of(database, tmp_path, trials=16, workers=1)
    assert claims(worker) == 4
    running = list(worker.held.running.values())
    worker.held.fail(running[0], "of this test")
    worker.held.record()
    assert claims(worker) == 0
    worker.held.fail(running[1], "of this test")
    worker.held.record()
    assert claims(worker) == 2
