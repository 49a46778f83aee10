"""The snapshot: samplers and pruners read it as they would the database, and change nothing there."""

from collections.abc import Callable

import optuna
import pytest
from conftest import study_of
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from searching import search, submitted

from hpo.search.database import Database
from hpo.search.history import History
from hpo.search.records import Changes, Claim, Finish
from hpo.search.snapshot import Snapshot
from hpo.search.store import Store

STUDY = """
search: {learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}, optimizer: {choices: [adam, sgd]}}
sampler: random
trials: 6
training: {epochs: 3}
pruner: {name: asha, reduction_factor: 2}
"""


@pytest.fixture
def snapshot(sqlite: Database) -> Snapshot:
    config = study_of(STUDY)
    search(sqlite, config, lanes=2)
    study = submitted(sqlite, config)
    shown = Snapshot(study, History(sqlite, study.study_id))
    shown.history.refresh()
    return shown


@pytest.mark.slow
def test_it_shows_what_optuna_reads_from_the_database(snapshot: Snapshot, sqlite: Database) -> None:
    stock = optuna.load_study(study_name="test", storage=str(sqlite.url))
    shown = optuna.Study("test", snapshot)
    assert shown.trials == stock.trials
    assert shown.best_trial == stock.best_trial
    assert shown.direction == stock.direction == StudyDirection.MAXIMIZE
    assert shown.user_attrs == stock.user_attrs
    assert [study.study_name for study in snapshot.get_all_studies()] == ["test"]
    pruned = [trial.number for trial in stock.get_trials(states=[TrialState.PRUNED])]
    assert [trial.number for trial in shown.get_trials(states=[TrialState.PRUNED])] == pruned != []


def test_everything_that_is_the_store_s_is_refused(snapshot: Snapshot) -> None:
    refused: list[Callable[[], object]] = [
        lambda: snapshot.create_new_study([StudyDirection.MINIMIZE]),
        lambda: snapshot.delete_study(1),
        lambda: snapshot.set_study_user_attr(1, "a", 1),
        lambda: snapshot.create_new_trial(1),
        lambda: snapshot.set_trial_state_values(1, TrialState.COMPLETE, [1.0]),
    ]
    for write in refused:
        with pytest.raises(RuntimeError, match="the snapshot of study 'test' is read-only"):
            write()


def test_what_is_written_to_an_own_trial_is_shown_and_waits_to_be_recorded(snapshot: Snapshot) -> None:
    trial = snapshot.adopt(Claim(trial_id=99, number=6, attempt=1, alone=False))
    kind = FloatDistribution(0.0, 1.0)
    snapshot.set_trial_param(99, "x", 0.5, kind)
    snapshot.set_trial_user_attr(99, "note", "n")
    snapshot.set_trial_system_attr(99, "rung", 1)
    snapshot.set_trial_intermediate_value(99, 1, 0.25)
    assert snapshot.get_trial(99) is trial and trial.params == {"x": 0.5}
    assert snapshot.get_all_trials(1)[-1] == trial
    snapshot.finish(99, TrialState.PRUNED, 0.25)
    assert trial.state == TrialState.PRUNED and trial.value == 0.25
    assert snapshot.take_changes() == Changes(
        params=[(99, "x", 0.5, kind)],
        user_attrs=[(99, "note", "n")],
        system_attrs=[(99, "rung", 1)],
        steps=[(99, 1, 0.25)],
        finishes=[Finish(99, TrialState.PRUNED, 0.25)],
    )
    assert not snapshot.take_changes()


def test_a_trial_of_another_worker_cannot_be_written(snapshot: Snapshot) -> None:
    theirs = snapshot.get_all_trials(1)[0]
    with pytest.raises(KeyError):
        snapshot.set_trial_user_attr(theirs._trial_id, "note", "n")


@pytest.mark.slow
def test_a_trial_that_is_forgotten_is_shown_no_longer(snapshot: Snapshot) -> None:
    snapshot.adopt(Claim(trial_id=99, number=6, attempt=1, alone=False))
    snapshot.forget(99)
    assert [trial.number for trial in snapshot.get_all_trials(1)] == list(range(6))


def test_a_trial_tried_again_is_shown_with_what_was_recorded(sqlite: Database) -> None:
    study = submitted(sqlite, study_of(STUDY))
    store = Store(sqlite)
    first = store.claim(study.study_id, "a", {}, 1, 10)[0]
    params = [(first.trial_id, "learning_rate", 0.01, FloatDistribution(1e-4, 1e-1, log=True))]
    steps = [(first.trial_id, 1, 0.5)]
    store.record("a", {first.trial_id: 1}, Changes(params=params, steps=steps, releases=[first.trial_id]))
    again = store.claim(study.study_id, "b", {}, 1, 10)[0]
    snapshot = Snapshot(study, History(sqlite, study.study_id))
    snapshot.history.refresh()
    trial = snapshot.adopt(again)
    assert trial.params == {"learning_rate": 0.01} and trial.intermediate_values == {1: 0.5}
    suggested = optuna.Trial(optuna.Study("test", snapshot), again.trial_id)
    assert suggested.suggest_float("learning_rate", 1e-4, 1e-1, log=True) == 0.01
