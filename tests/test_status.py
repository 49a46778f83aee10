"""How a study stands."""

import time
from datetime import datetime, timedelta

import optuna
import pytest
from conftest import study_of
from optuna.trial import FrozenTrial, TrialState
from searching import search, submitted

from hpo.search.database import Database
from hpo.search.records import Changes, Finish
from hpo.search.status import RESULT, STARTED, STOPPED, StatusReader, pace
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import EARLIER_RESULTS, extend

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


def test_its_json_has_the_keys_that_scripts_read(sqlite: Database) -> None:
    config = study_of(STUDY)
    study = submitted(sqlite, config)
    assert StatusReader(sqlite, study).read().as_json()["best"] is None
    search(sqlite, config)
    answer = StatusReader(sqlite, study).read().as_json()
    assert set(answer) >= {"study", "state", "waiting", "running", "complete", "pruned", "failed", "best"}
    assert set(answer["best"]) == {"number", "params", "value"}


def ended(minutes_ago: float, lasting: float = 1.0) -> FrozenTrial:
    """A trial of so many minutes that ended so long ago."""
    trial = optuna.trial.create_trial(value=0.5)
    trial.datetime_complete = datetime.now() - timedelta(minutes=minutes_ago)
    trial.datetime_start = trial.datetime_complete - timedelta(minutes=lasting)
    return trial


def test_the_pace_of_quick_trials_is_that_of_the_last_minute() -> None:
    quick = [ended(second / 60, lasting=0.01) for second in range(59)]
    slow = [ended(30 + minute, lasting=1) for minute in range(20)]
    assert pace([*slow, *quick]) == pytest.approx(3600, rel=0.05)


def test_the_pace_of_a_study_that_has_just_begun_counts_only_its_own_time() -> None:
    assert pace([ended(0.01 * n, lasting=0.05) for n in range(10)]) == pytest.approx(10 / 0.14 * 60, rel=0.1)


def test_the_pace_of_slow_trials_does_not_jump_when_one_ends() -> None:
    before = pace([ended(5 * n + 4.9, lasting=5) for n in range(12)])
    after = pace([ended(5 * n, lasting=5) for n in range(12)])
    assert before == pytest.approx(12, rel=0.1) and after == pytest.approx(12, rel=0.1)


def test_a_study_that_rests_has_no_pace() -> None:
    assert pace([]) is None
    assert pace([ended(300), ended(200)]) is None


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


def test_a_study_whose_hours_are_over_is_searched_with_trials_left(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY + "hours: 1"))
    Studies(sqlite).set_attrs(study.study_id, {STARTED: time.time() - 3599})
    assert StatusReader(sqlite, study).read().state == "waiting"
    Studies(sqlite).set_attrs(study.study_id, {STARTED: time.time() - 3601})
    assert StatusReader(sqlite, study).read().state == "searched"
