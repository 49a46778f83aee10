"""Leases where several things happen at once, on SQLite and on Postgres; their plain contract: test_store."""

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from checker import Log, check, read_logs
from commands import eventually
from conftest import study_of
from crew import Plan
from faults import ForgetfulDatabase, LoggedStore, study_record
from optuna.study import StudyDirection
from optuna.trial import TrialState
from standin import StandIn, StandInCheckpoints, StandInGroup, value

from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.leases import Heartbeat, Leases, Watch
from hpo.search.records import Changes, Claim, Lease, StudyRecord
from hpo.search.status import STOPPED
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.worker import Worker

PLENTY = 1000


@pytest.fixture
def study(database: Database) -> StudyRecord:
    return Studies(database).submit("s", StudyDirection.MAXIMIZE, {}, 8)


def held(claims: list[Claim]) -> dict[int, int]:
    return {claim.trial_id: claim.attempt for claim in claims}


def test_a_trial_on_its_way_from_worker_to_worker_is_never_overlooked(database: Database) -> None:
    study = Studies(database).submit("one", StudyDirection.MAXIMIZE, {}, 1)
    done = threading.Event()

    def pass_on() -> None:
        store = Store(database)
        while not done.is_set():
            mine = held(store.claim(study.study_id, "w", {}, 1, PLENTY))
            store.record("w", mine, Changes(releases=list(mine)))

    thread = threading.Thread(target=pass_on)
    thread.start()
    try:
        seen = {Leases(database).unfinished(study.study_id) for _ in range(300)}
    finally:
        done.set()
        thread.join()
    assert seen == {(0, 1), (1, 0)}


def test_workers_that_hold_trials_are_told_with_their_last_sign_of_life(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    assert leases.holders(study.study_id) == []
    store.claim(study.study_id, "silent", {}, 2, PLENTY)
    given_back = held(store.claim(study.study_id, "done", {}, 1, PLENTY))
    store.claim(study.study_id, "alive", {}, 3, PLENTY)
    store.record("done", given_back, Changes(releases=list(given_back)))
    time.sleep(0.5)
    leases.renew("alive")
    alive, silent = leases.holders(study.study_id)
    assert (alive.name, alive.trials, silent.name, silent.trials) == ("alive", 3, "silent", 2)
    assert -0.01 <= alive.silent_seconds < silent.silent_seconds and silent.silent_seconds >= 0.5


def test_all_trials_of_a_dead_worker_expire_together_whenever_they_were_claimed(
    database: Database, study: StudyRecord
) -> None:
    store, watch = Store(database, lease=0.6), Watch(Leases(database), retries=0)
    store.claim(study.study_id, "dead", {}, 2, PLENTY)
    watch.look()
    time.sleep(0.3)
    store.claim(study.study_id, "dead", {1: 1, 2: 1}, 1, PLENTY)
    while not (expired := watch.look()):
        time.sleep(0.05)
    assert len(expired) == 3
    claims = [store.claim(study.study_id, f"w{turn}", {}, 4, PLENTY) for turn in range(3)]
    assert [[claim.number for claim in some] for some in claims] == [[0], [1], [2]]


def test_a_lease_is_judged_by_the_length_that_its_own_worker_chose(
    database: Database, study: StudyRecord
) -> None:
    patient = held(Store(database, lease=60).claim(study.study_id, "patient", {}, 1, PLENTY))
    Store(database, lease=0.4).claim(study.study_id, "hasty", {}, 1, PLENTY)
    watch = Watch(Leases(database), retries=2)
    taken: list[Lease] = []
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        taken += watch.look()
        time.sleep(0.05)
    assert [(lease.worker, lease.seconds) for lease in taken] == [("hasty", 0.4)]
    assert Store(database).record("patient", patient, Changes()) == set()


def test_a_worker_with_a_long_lease_notices_the_end_of_a_short_one(
    database: Database, study: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.search.leases.WATCHED", 2.0)  # the first look comes after a quarter of it
    store = Store(database, lease=0.6)
    store.claim(study.study_id, "short", {}, 1, PLENTY)
    with Heartbeat(Leases(database), "long", seconds=120, retries=2):
        time.sleep(1.0)
        assert Leases(database).running() != []
        eventually(lambda: Leases(database).running() == [], 5)


def test_a_claim_of_one_s_own_lost_trial_whose_answer_was_lost_too_is_not_made_twice(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    old = held(store.claim(study.study_id, "w", {}, 1, PLENTY))
    store.record("w", old, Changes(steps=[(trial_id, 1, 0.5) for trial_id in old]))
    leases.reclaim(leases.running(), retries=2)
    with ForgetfulDatabase(database.url.render_as_string(hide_password=False)) as forgetful:
        forgetful.lost_answers = 1.0
        claims = Store(forgetful).claim(study.study_id, "w", old, 1, PLENTY)
    assert [(claim.number, claim.attempt) for claim in claims] == [(0, 2)]
    assert [lease.attempt for lease in leases.running()] == [2]


def test_a_watcher_that_could_read_but_not_write_takes_nobody_for_dead(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/hpo.db") as database, contextlib.ExitStack() as lives:
        database.create_schema()
        study = Studies(database).submit("s", StudyDirection.MAXIMIZE, {}, 8)
        leases, store = Leases(database), Store(database, lease=0.5)
        held_by = {name: held(store.claim(study.study_id, name, {}, 2, PLENTY)) for name in "abcd"}
        for name in held_by:
            lives.enter_context(Heartbeat(leases, name, seconds=0.5, retries=2))
        watch, done = Watch(leases, retries=2), threading.Event()

        def look() -> None:
            while not done.wait(0.05):
                watch.look()

        thread = threading.Thread(target=look)
        thread.start()
        database.write(lambda _: time.sleep(2))  # nobody can renew meanwhile, and everybody could read
        time.sleep(0.5)
        done.set()
        thread.join()
        assert [store.record(name, mine, Changes()) for name, mine in held_by.items()] == [set()] * 4


class RobbedStore(LoggedStore):
    """Once, when the worker asks for more trials, those that it has were just taken from it."""

    robbed = 0

    def claim(self, study_id: int, worker: str, held: Mapping[int, int], *room: int) -> list[Claim]:
        if held and not self.robbed:
            self.robbed = len(held)
            leases = Leases(self.database)
            leases.reclaim(leases.running(), retries=9)
        return super().claim(study_id, worker, held, *room)


def stand_in_worker(database: Database, folder: Path, text: str, lanes: int = 3) -> Worker:
    """A worker in this process."""
    config = study_of(f"search: {{learning_rate: {{low: 0.01, high: 0.1}}}}\nsampler: random\n{text}")
    study = study_record(database, config)
    plan = Plan("", config.name, folder, lanes=lanes, epoch=0.0, save_every=0.0)
    checkpoints = StandInCheckpoints(folder / "checkpoints", lambda point: None)
    trainer = StandIn(plan, Log(folder))
    return Worker(database, study, config, trainer, plan.options, threading.Event(), checkpoints)


def test_a_worker_may_claim_trials_again_that_it_lost_unnoticed(database: Database, tmp_path: Path) -> None:
    worker = stand_in_worker(database, tmp_path, "trials: 12\ntraining: {epochs: 6}\npruner: asha")
    store = RobbedStore(database, worker.trainer.log, "")
    worker.held.store = store
    worker.run()
    trials = read_trials(database, worker.study.study_id)
    assert store.robbed
    assert {trial.user_attrs["attempt"] for trial in trials} == {1, 2}
    assert check(read_logs(tmp_path), trials, 12, expected=value) == []


def with_a_pruning_to_record(database: Database, folder: Path) -> tuple[Worker, Claim]:
    """A worker whose first trial is pruned, as the database will learn with the next epoch's values."""
    text = "trials: 8\ntraining: {epochs: 6}\npruner: {name: median, startup_trials: 50}"
    worker = stand_in_worker(database, folder, text)
    worker._refill()
    worker._settle(worker._train_epoch())
    worker.held.save()
    trial = min(worker.held.running.values(), key=lambda trial: trial.claim.number)
    worker._seconds = 0.0
    worker.held.finish(trial, TrialState.PRUNED, 0.5)
    worker._record_unless_brief()
    assert read_trials(database, worker.study.study_id)[0].state == TrialState.RUNNING
    return worker, trial.claim


def test_no_checkpoint_leaves_out_a_trial_whose_end_is_not_recorded(
    database: Database, tmp_path: Path
) -> None:
    worker, claim = with_a_pruning_to_record(database, tmp_path)
    assert worker.checkpoints and worker.checkpoints.load(claim.number, 6)
    worker.held.save()
    assert not worker.checkpoints.load(claim.number, 6)
    assert read_trials(database, worker.study.study_id)[0].state == TrialState.PRUNED


@pytest.mark.parametrize("read", [False, True])
def test_an_end_that_was_not_recorded_is_not_that_of_a_later_attempt(
    database: Database, tmp_path: Path, read: bool
) -> None:
    worker, claim = with_a_pruning_to_record(database, tmp_path)
    if read:
        worker.snapshot.refresh([trial.claim.number for trial in worker.held.running.values()])
    # While this worker is stopped, its trials are taken back, and another dies after an epoch of the first.
    store, leases = Store(database), Leases(database)
    leases.reclaim(leases.running(), retries=9)
    others = held(store.claim(worker.study.study_id, "other", {}, 1, PLENTY))
    store.record("other", others, Changes(steps=[(claim.trial_id, 2, 0.5)]))
    leases.reclaim(leases.running(), retries=9)

    assert worker._refill()
    again = worker.held.running[claim.trial_id]
    assert (again.claim.attempt, again.decided, again.values.keys()) == (3, 2, {1})
    worker.held.record()
    first = read_trials(database, worker.study.study_id)[0]
    assert (first.state, list(first.intermediate_values)) == (TrialState.RUNNING, [1, 2])
    assert claim.number in worker.snapshot.history.running
    assert claim.number not in worker.snapshot.history.finished


def test_an_attempt_that_came_to_nothing_brings_a_study_on(database: Database, study: StudyRecord) -> None:
    store, leases, studies = Store(database), Leases(database), Studies(database)
    seen = [studies.progress(study.study_id)]
    for attempt in range(3):
        store.claim(study.study_id, f"w{attempt}", {}, 1, PLENTY)
        seen.append(studies.progress(study.study_id))
        leases.reclaim(leases.running(), retries=1)
        seen.append(studies.progress(study.study_id))
    ends = [0, 0, 1, 1, 3, 3, 4]  # the second attempt is one too many: the trial fails
    assert seen == [(number, 0) for number in ends]


def test_a_trial_that_has_no_memory_beside_others_waits_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, refused = StandInGroup.train_epoch, []

    def crowded(group: StandInGroup, stop: Any) -> Any:
        if 1 in group.epochs and not refused:
            refused.append(1)
            raise MemoryError
        return train(group, stop)

    monkeypatch.setattr(StandInGroup, "train_epoch", crowded)
    monkeypatch.setattr(StandIn, "out_of_memory", lambda _, error: isinstance(error, MemoryError))
    # Each trial has its own.
    monkeypatch.setattr(StandIn, "shape_key", lambda _, settings: str(settings.hyperparameters.learning_rate))
    worker = stand_in_worker(database, tmp_path, "trials: 4\ntraining: {epochs: 3}", lanes=4)
    worker.run()
    trials = read_trials(database, worker.study.study_id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert [trial.user_attrs["attempt"] for trial in trials] == [1, 2, 1, 1]


def test_checkpoints_stay_as_long_as_a_trial_waits(database: Database, tmp_path: Path) -> None:
    worker = stand_in_worker(database, tmp_path, "trials: 2\ntraining: {epochs: 4}")
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "of another worker.json").write_text('{"1": 3}')
    studies = Studies(database)
    studies.set_attrs(worker.study.study_id, {STOPPED: True})
    worker.run()
    assert list(checkpoints.iterdir())
    studies.set_attrs(worker.study.study_id, {STOPPED: False})
    stand_in_worker(database, tmp_path, "trials: 2\ntraining: {epochs: 4}").run()
    assert {trial.state for trial in read_trials(database, worker.study.study_id)} == {TrialState.COMPLETE}
    assert not list(checkpoints.iterdir())


def test_a_checkpoint_stays_until_the_end_of_its_trial_is_recorded(
    database: Database, tmp_path: Path
) -> None:
    class Ends(Exception):
        pass

    class EndingStore(LoggedStore):
        def record(self, worker: str, held: Mapping[int, int], changes: Changes) -> set[int]:
            if changes.finishes:
                raise Ends
            return super().record(worker, held, changes)

    worker = stand_in_worker(database, tmp_path, "trials: 1\ntraining: {epochs: 4}")
    worker.held.store = EndingStore(database, worker.trainer.log, "")
    with pytest.raises(Ends):
        worker.run()
    assert worker.checkpoints.load(0, 3) == (3, 3)


def test_a_worker_leaves_the_checkpoint_of_a_lost_trial_to_whoever_goes_on_with_it(
    database: Database, tmp_path: Path
) -> None:
    class RobbingStore(LoggedStore):
        """Another worker takes the first trial after its third epoch; after two more, this one stops."""

        finished = 0

        def record(self, name: str, held: Mapping[int, int], changes: Changes) -> set[int]:
            lost = super().record(name, held, changes)
            if any(epoch == 3 for _, epoch, _ in changes.steps) and not self.finished:
                worker.groups.save()
                leases = Leases(self.database)
                leases.reclaim(leases.running(), retries=9)
                Store(self.database).claim(worker.study.study_id, "other", {}, 1, PLENTY)
            self.finished += len(changes.finishes)
            if self.finished == 2:
                worker.stop.set()
            return lost

    worker = stand_in_worker(database, tmp_path, "trials: 9\ntraining: {epochs: 6}", lanes=1)
    worker.held.store = RobbingStore(database, worker.trainer.log, "")
    worker.run()
    assert {entry.trial for entry in read_logs(tmp_path) if entry.kind == "finish"} == {1, 2}
    assert worker.checkpoints.load(0, most=3) == (3, 3)
