"""A study as an ordinary Optuna objective."""

from pathlib import Path

import optuna
import pytest
from conftest import study_of
from optuna.trial import TrialState
from searching import search

from hpo.errors import DataError
from hpo.search.database import Database
from hpo.search.objective import Objective

SPACE = """
search:
  dropout: {low: 0.0, high: 0.7}
  learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
"""


def test_it_reports_each_epoch_and_answers_the_metric() -> None:
    config = study_of(f"{SPACE}training: {{epochs: 3}}")
    study = optuna.create_study(direction="maximize")
    study.optimize(Objective(config), n_trials=3)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    for trial in study.trials:
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == trial.intermediate_values[3] and 0.3 < trial.value <= 1
        assert set(trial.params) == {"dropout", "learning_rate"}


def test_it_is_pruned_by_the_study_s_pruner() -> None:
    config = study_of(f"{SPACE}training: {{epochs: 6}}")
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=2)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=sampler)
    study.optimize(Objective(config), n_trials=10)
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
        assert max(trial.intermediate_values) < 6


def test_a_trial_whose_loss_is_not_finite_fails_with_the_reason_and_the_study_goes_on() -> None:
    config = study_of(
        "search: {learning_rate: {choices: [1.0e-2, 1.0e+30]}}\ntraining: {epochs: 3, optimizer: sgd}"
    )
    study = optuna.create_study(direction="maximize")
    for rate in (1e30, 1e-2):
        study.enqueue_trial({"learning_rate": rate})
    study.optimize(Objective(config), n_trials=2)
    failed, good = study.trials
    assert failed.state == TrialState.FAIL and good.state == TrialState.COMPLETE
    assert "loss is " in failed.user_attrs["failure"]
    assert study.best_trial.number == 1


def test_a_network_that_cannot_be_built_fails_its_trial_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "def build(shape, classes, width=8):\n    raise ValueError('too wide')\n"
    )
    config = study_of("architecture: net.py:build\nsearch: {width: {choices: [8]}}", tmp_path)
    study = optuna.create_study(direction="maximize")
    study.optimize(Objective(config), n_trials=1)
    assert study.trials[0].state == TrialState.FAIL
    assert "ValueError: too wide" in study.trials[0].user_attrs["failure"]


@pytest.mark.slow
def test_a_trial_comes_to_the_same_values_as_in_a_worker(sqlite: Database) -> None:
    config = study_of(
        f"{SPACE}validation: {{folds: 2}}\ntraining: {{epochs: 3, select: best_epoch}}\n"
        "sampler: random\ntrials: 3"
    )
    searched = search(sqlite, config)
    study = optuna.create_study(direction="maximize")
    for trial in searched:
        study.enqueue_trial(trial.params)
    study.optimize(Objective(config), n_trials=3)
    for ours, theirs in zip(searched, study.trials, strict=True):
        assert theirs.params == ours.params
        assert theirs.intermediate_values == pytest.approx(ours.intermediate_values, abs=1e-6)
        assert theirs.value == pytest.approx(ours.value, abs=1e-6)


def test_missing_data_are_told_before_any_trial(tmp_path: Path) -> None:
    config = study_of(f"{SPACE}data: {{source: csv, path: none.csv, target: y}}", tmp_path)
    with pytest.raises(DataError, match=r"none\.csv"):
        Objective(config)
