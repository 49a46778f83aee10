"""How a study stands."""

import time

import optuna
import pytest
from conftest import study_of
from optuna.trial import TrialState
from searching import search, submitted

from hpo.search.database import Database
from hpo.search.records import Changes, Finish
from hpo.search.status import CAPACITY, RESULT, STARTED, STOPPED, StatusReader
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import EARLIER_RESULTS, extend
from hpo.search.training import Measured

STUDY = """
search: {learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
sampler: random
trials: 6
training: {epochs: 2}
"""


def test_it_counts_trials_and_names_the_state_of_the_study(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY))
    reader, studies, store = StatusReader(sqlite, study), Studies(sqlite), Store(sqlite)

    def standing() -> tuple[str, int, int, int]:
        status = reader.read()
        assert status.total == 6
        return status.state, status.waiting, status.running, status.finished

    assert standing() == ("waiting", 6, 0, 0)
    claims = store.claim(study.study_id, "w", {}, 6, 10)
    held = {claim.trial_id: claim.attempt for claim in claims}
    ids = list(held)
    assert standing() == ("running", 0, 6, 0)
    store.record("w", held, Changes(finishes=[Finish(ids[0], TrialState.FAIL)], releases=ids[1:]))
    assert standing() == ("paused", 5, 0, 1)
    studies.set_attrs(study.study_id, {STOPPED: True})
    assert standing() == ("stopped", 5, 0, 1)
    studies.set_attrs(study.study_id, {STOPPED: False})
    search(sqlite, study_of(STUDY))
    assert standing() == ("searched", 0, 0, 6)
    studies.set_attrs(study.study_id, {RESULT: {}})
    assert standing() == ("finished", 0, 0, 6)


@pytest.mark.slow
def test_the_best_trial_is_optuna_s(sqlite: Database) -> None:
    search(sqlite, study_of(f"{STUDY}name: max"))
    search(sqlite, study_of(f"{STUDY}name: min\nmetric: loss"))
    for name in ("max", "min"):
        theirs = optuna.load_study(study_name=name, storage=str(sqlite.url)).best_trial
        best = StatusReader(sqlite, Studies(sqlite).study(name)).read().best
        assert best is not None
        assert (best.number, best.params, best.value) == (theirs.number, theirs.params, theirs.value)


def test_a_running_trial_is_shown_with_its_last_epoch(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY))
    store, reader = Store(sqlite), StatusReader(sqlite, study)
    first, second = (claim.trial_id for claim in store.claim(study.study_id, "w", {}, 2, 10))
    store.record("w", {first: 1, second: 1}, Changes(steps=[(second, 1, 0.5), (second, 2, 0.75)]))
    assert [(row.number, row.epoch, row.value) for row in reader.read().rows] == [(0, 0, None), (1, 2, 0.75)]


def test_lanes_in_use_are_folds_of_running_trials_on_the_workers_that_hold_them(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(f"{STUDY}validation: {{folds: 3}}"))
    store, reader = Store(sqlite), StatusReader(sqlite, study)
    assert (reader.read().lanes, reader.read().workers, reader.read().room) == (0, (), None)
    claims = store.claim(study.study_id, "b", {}, 2, 10)
    store.claim(study.study_id, "a", {}, 3, 10)
    status = reader.read()
    assert status.lanes == 15
    assert [(worker.name, worker.trials) for worker in status.workers] == [("a", 3), ("b", 2)]
    assert all(0 <= worker.silent_seconds < 5 for worker in status.workers)
    store.record("b", {claim.trial_id: 1 for claim in claims}, Changes(releases=[claims[0].trial_id]))
    assert [worker.trials for worker in reader.read().workers] == [3, 1]


def test_what_the_first_worker_measured_is_the_room_of_each_of_them(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY))
    store, reader = Store(sqlite), StatusReader(sqlite, study)
    store.claim(study.study_id, "a", {}, 3, 10)
    assert (reader.read().measured, reader.read().room) == (None, None)
    Studies(sqlite).claim_attr(study.study_id, CAPACITY, {"lanes": 3, "fused": 4, "speed_up": 2.5})
    assert (reader.read().measured, reader.read().room) == (Measured(3, 4, 2.5), 3)
    store.claim(study.study_id, "b", {}, 1, 10)
    assert reader.read().room == 6
    store.claim(study.study_id, "c", {}, 2, 10)
    assert (reader.read().lanes, reader.read().room) == (6, 9)


def test_no_room_is_told_where_workers_have_more_lanes_than_was_measured(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY))
    Studies(sqlite).claim_attr(study.study_id, CAPACITY, {"lanes": 2, "fused": 2, "speed_up": 1.5})
    Store(sqlite).claim(study.study_id, "a", {}, 3, 10)
    assert StatusReader(sqlite, study).read().room is None


@pytest.mark.slow
def test_its_json_has_the_keys_that_scripts_read(sqlite: Database) -> None:
    config = study_of(STUDY)
    study = submitted(sqlite, config)
    assert StatusReader(sqlite, study).read().as_json()["best"] is None
    search(sqlite, config, lanes=None)
    answer = StatusReader(sqlite, study).read().as_json()
    assert set(answer) >= {"study", "state", "waiting", "running", "complete", "pruned", "failed", "best"}
    assert set(answer["best"]) == {"number", "params", "value"}
    assert set(answer["measured"]) == {"lanes", "fused", "speed_up"}
    assert (answer["lanes"], answer["lanes_of_workers"], answer["workers"]) == (0, None, [])
    assert answer["trials_per_hour"] == answer["trials_per_hour_overall"] > 0
    Studies(sqlite).extend(study.study_id, 1)
    Store(sqlite).claim(study.study_id, "w", {}, 1, 10)
    [worker] = StatusReader(sqlite, study).read().as_json()["workers"]
    assert (worker["name"], worker["trials"]) == ("w", 1) and worker["silent_seconds"] < 5


@pytest.mark.slow
def test_an_extended_study_is_open_again_and_keeps_its_result_aside(sqlite: Database) -> None:
    config = study_of(STUDY)
    search(sqlite, config)
    study = submitted(sqlite, config)
    Studies(sqlite).set_attrs(study.study_id, {RESULT: {"winner": 1}})
    study = submitted(sqlite, config)
    assert extend(Studies(sqlite), study, 2) == 8
    status = StatusReader(sqlite, study).read()
    assert (status.state, status.waiting, status.finished) == ("paused", 2, 6)
    assert submitted(sqlite, config).attrs[EARLIER_RESULTS] == [{"winner": 1}]
    assert len(search(sqlite, config)) == 8


def test_the_hours_of_an_extended_study_begin_anew(sqlite: Database) -> None:
    config = study_of(STUDY + "hours: 1")
    search(sqlite, config)
    study = submitted(sqlite, config)
    Studies(sqlite).set_attrs(study.study_id, {STARTED: time.time() - 3601})
    assert extend(Studies(sqlite), study, 1) == 7
    assert len(search(sqlite, config)) == 7


def test_a_study_whose_hours_are_over_is_searched_with_trials_left(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY + "hours: 1"))
    Studies(sqlite).set_attrs(study.study_id, {STARTED: time.time() - 3599})
    assert StatusReader(sqlite, study).read().state == "waiting"
    Studies(sqlite).set_attrs(study.study_id, {STARTED: time.time() - 3601})
    assert StatusReader(sqlite, study).read().state == "searched"
