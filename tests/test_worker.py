"""The worker and its real trainer, in this process and on SQLite: what is searched comes out right."""

import math
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import study_of
from optuna.trial import FrozenTrial, TrialState
from searching import search, submitted

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.launch import serve
from hpo.search.running import WorkerOptions
from hpo.search.status import CAPACITY
from hpo.search.studies import Studies
from hpo.search.trainer import Trainer
from hpo.training.checkpoint import Checkpoints

SPACE = """
search:
  dropout: {low: 0.0, high: 0.7}
  batch_size: {choices: [64, 128]}
  optimizer: {choices: [adam, rmsprop, sgd]}
  learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
"""


def facts(trials: list[FrozenTrial]) -> list[object]:
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in trials]


def alone(config: StudyConfig, trial: FrozenTrial) -> dict[int, float]:
    """The values that a trial comes to when it trains by itself."""
    group = Trainer(config, prepare(config)).group(config.settings(trial.params))
    group.add(trial.number, config.settings(trial.params))
    epochs = [group.train_epoch()[trial.number] for _ in range(config.training.epochs)]
    return {epoch.number: epoch.value for epoch in epochs}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "tpe, multivariate: true", "random", "gp", "qmc"])
def test_each_sampler_searches_a_study_to_its_end(sqlite: Database, sampler: str) -> None:
    startup = ", startup_trials: 4" if sampler[0] in "tg" else ""
    config = study_of(f"{SPACE}trials: 8\ntraining: {{epochs: 2}}\nsampler: {{name: {sampler}{startup}}}")
    trials = search(sqlite, config)
    assert [trial.number for trial in trials] == list(range(8))
    for trial in trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == trial.intermediate_values[2] and set(trial.intermediate_values) == {1, 2}
        assert set(trial.params) == set(config.search)
        assert trial.user_attrs["epochs"] == 2 and trial.user_attrs["attempt"] == 1
    assert len({str(trial.params) for trial in trials}) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "pruner",
    [
        "{name: median, min_epochs: 2, startup_trials: 2}",
        "{name: asha, min_epochs: 1, reduction_factor: 2}",
        "{name: hyperband, min_epochs: 1, reduction_factor: 3}",
        "{name: patient, patience: 1}",
    ],
)
def test_each_pruner_ends_trials_early_and_they_keep_their_last_value(sqlite: Database, pruner: str) -> None:
    config = study_of(f"{SPACE}trials: 16\ntraining: {{epochs: 9}}\nsampler: random\npruner: {pruner}")
    trials = search(sqlite, config, lanes=4)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned and len(trials) == 16
    for trial in pruned:
        assert 1 <= max(trial.intermediate_values) < 9
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
    assert any(trial.state == TrialState.COMPLETE for trial in trials)


@pytest.mark.slow
def test_the_first_worker_s_measurement_is_recorded_with_the_study(sqlite: Database) -> None:
    config = study_of(f"{SPACE}trials: 16\ntraining: {{epochs: 1}}\nsampler: random")
    search(sqlite, config, lanes=None)
    measured = Studies(sqlite).study("test").attrs[CAPACITY]
    assert 1 <= measured["fused"] <= 16 and 1 <= measured["lanes"] <= 16
    assert measured["speed_up"] >= 1
    Studies(sqlite).extend(Studies(sqlite).study("test").study_id, 4)
    assert len(search(sqlite, config, lanes=None)) == 20
    assert Studies(sqlite).study("test").attrs[CAPACITY] == measured


def test_with_a_number_of_lanes_nothing_is_measured_nor_recorded(sqlite: Database) -> None:
    search(sqlite, study_of(f"{SPACE}trials: 4\ntraining: {{epochs: 1}}\nsampler: random"), lanes=2)
    assert CAPACITY not in Studies(sqlite).study("test").attrs


@pytest.mark.slow
def test_one_worker_comes_to_the_same_study_twice(
    sqlite: Database, new_database: Callable[[], Database]
) -> None:
    config = study_of(
        f"{SPACE}trials: 24\ntraining: {{epochs: 4}}\n"
        "sampler: {name: tpe, startup_trials: 4}\npruner: {name: asha, reduction_factor: 2}"
    )
    first = search(sqlite, config, lanes=8)
    assert facts(first) == facts(search(new_database(), config, lanes=8))
    assert {trial.state for trial in first} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_values_are_those_of_the_trial_alone_whatever_trains_beside_it(sqlite: Database) -> None:
    config = study_of(f"{SPACE}trials: 6\ntraining: {{epochs: 3}}\nsampler: random")
    for trial in search(sqlite, config):
        assert trial.intermediate_values == pytest.approx(alone(config, trial), abs=1e-6)


def test_a_grid_covers_every_combination_once(sqlite: Database) -> None:
    config = study_of(
        "search: {batch_size: {choices: [64, 128]}, optimizer: {choices: [adam, sgd]},"
        " momentum: {choices: [0.0, 0.9], when: {optimizer: sgd}}}\n"
        "trials: 6\ntraining: {epochs: 1}\nsampler: grid"
    )
    found = {tuple(sorted(trial.params.items())) for trial in search(sqlite, config)}
    assert len(found) == 6
    assert {dict(params).get("momentum") for params in found} == {None, 0.0, 0.9}


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "loss"])
def test_regression_improves_in_the_direction_of_its_metric(sqlite: Database, metric: str) -> None:
    config = study_of(
        "data: {source: sklearn, name: diabetes}\nsearch: {learning_rate: {choices: [1.0e-6, 1.0e-2]}}\n"
        f"metric: {metric}\nsampler: grid\ntrials: 2\ntraining: {{epochs: 10, batch_size: 32}}"
    )
    slow, fast = search(sqlite, config)
    assert (fast.value > slow.value) is (metric == "r2")


@pytest.mark.slow
def test_three_classes_are_searched_by_each_of_their_metrics(sqlite: Database) -> None:
    for metric in ("accuracy", "f1", "roc_auc", "loss"):
        config = study_of(
            f"name: {metric}\ndata: {{source: sklearn, name: wine}}\nmetric: {metric}\n"
            "search: {width: {choices: [8, 16]}}\nsampler: grid\ntrials: 2\ntraining: {epochs: 3}"
        )
        assert all(0 <= trial.value <= 2 for trial in search(sqlite, config))


@pytest.mark.slow
def test_with_folds_a_trial_s_value_is_their_mean_and_their_spread_is_kept(sqlite: Database) -> None:
    config = study_of(f"{SPACE}validation: {{folds: 3}}\ntrials: 3\ntraining: {{epochs: 2}}\nsampler: random")
    trainer = Trainer(config, prepare(config))
    for trial in search(sqlite, config):
        group = trainer.group(config.settings(trial.params))
        group.add(trial.number, config.settings(trial.params))
        group.train_epoch()
        folds = [result.value for result in group.cohort.train_epoch().values()]
        assert len(folds) == 3
        assert trial.value == pytest.approx(statistics.fmean(folds), abs=1e-6)
        assert trial.user_attrs["fold_spread"] == pytest.approx(statistics.stdev(folds), abs=1e-6)


@pytest.mark.slow
def test_best_epoch_chooses_the_best_value_of_all_epochs(sqlite: Database) -> None:
    config = study_of(f"{SPACE}trials: 8\ntraining: {{epochs: 6, select: best_epoch}}\nsampler: random")
    trials = search(sqlite, config)
    assert all(trial.value == max(trial.intermediate_values.values()) for trial in trials)
    assert any(trial.value != trial.intermediate_values[6] for trial in trials)


@pytest.mark.slow
def test_after_its_hours_no_trial_starts_and_those_begun_are_finished(sqlite: Database) -> None:
    config = study_of(f"{SPACE}trials: 100000\nhours: {1.5 / 3600}\ntraining: {{epochs: 2}}\nsampler: random")
    started = time.monotonic()
    trials = search(sqlite, config, lanes=8)
    assert 1 <= time.monotonic() - started < 30
    assert 0 < len(trials) < 100000
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


@pytest.mark.slow
def test_a_study_with_hardly_any_hours_begins_its_first_trials(sqlite: Database) -> None:
    config = study_of(f"{SPACE}trials: 100000\nhours: 1.0e-7\ntraining: {{epochs: 2}}\nsampler: random")
    assert {trial.state for trial in search(sqlite, config, lanes=2)} == {TrialState.COMPLETE}


@pytest.mark.slow
def test_a_trial_whose_loss_is_not_finite_fails_with_the_reason_and_the_others_go_on(
    sqlite: Database,
) -> None:
    config = study_of(
        "search: {learning_rate: {choices: [1.0e-2, 1.0e+30]}, dropout: {choices: [0.0, 0.5]}}\n"
        "sampler: grid\ntrials: 4\ntraining: {epochs: 4, optimizer: sgd}"
    )
    trials = search(sqlite, config)
    bad = [trial for trial in trials if trial.params["learning_rate"] > 1]
    good = [trial for trial in trials if trial.params["learning_rate"] < 1]
    for trial in bad:
        assert trial.state == TrialState.FAIL and trial.values is None
        assert trial.user_attrs["failure"].startswith("epoch ") and "loss is " in trial.user_attrs["failure"]
        assert all(math.isfinite(value) for value in trial.intermediate_values.values())
    for trial in good:
        assert trial.state == TrialState.COMPLETE
        assert trial.intermediate_values == pytest.approx(alone(config, trial), abs=1e-6)


FRAGILE = """
import torch
from torch import nn

class Fragile(nn.Module):
    def __init__(self, features, classes, dropout, patience):
        super().__init__()
        layers = nn.Linear(features, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, classes)
        self.layers = nn.Sequential(*layers)
        self.breaks = dropout > 0.5
        self.patience = patience
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.breaks and self.calls > self.patience:
            raise RuntimeError(f"broke with dropout {self.layers[2].p}")
        return self.layers(x)

def build(input_shape, classes, dropout=0.0, patience=20):
    return Fragile(input_shape[0], classes, dropout, patience)

def invalid(input_shape, classes, dropout=0.0):
    if dropout > 0.5:
        return "no module"
    return build(input_shape, classes, dropout, 10**9)

def nan(input_shape, classes, dropout=0.0):
    net = build(input_shape, classes, dropout, 10**9)
    if dropout > 0.5:
        nn.init.constant_(net.layers[0].weight, float("nan"))
    return net
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        ("build", "{patience: 0}", "broke with dropout 0.6"),
        ("build", "{patience: 30}", "broke with dropout 0.6"),
        ("invalid", "{}", "returned str, must return a torch.nn.Module"),
        ("nan", "{}", "epoch 1: the training loss is nan"),
    ],
)
def test_a_module_that_breaks_for_one_value_fails_only_those_trials(
    sqlite: Database, tmp_path: Path, function: str, options: str, reason: str
) -> None:
    (tmp_path / "net.py").write_text(FRAGILE)
    config = study_of(
        f"architecture: net.py:{function}\noptions: {options}\n"
        "search: {dropout: {choices: [0.0, 0.6, 0.3, 0.1]}, learning_rate: {choices: [0.01, 0.001]}}\n"
        "sampler: grid\ntrials: 8\ntraining: {epochs: 4}",
        tmp_path,
    )
    trials = search(sqlite, config, lanes=None)  # it may break already when they are measured
    assert len(trials) == 8
    for trial in trials:
        if trial.params["dropout"] == 0.6:
            assert trial.state == TrialState.FAIL
            assert reason in trial.user_attrs["failure"]
        else:
            assert trial.state == TrialState.COMPLETE
            assert trial.intermediate_values == pytest.approx(alone(config, trial), abs=1e-6)


@pytest.mark.slow
def test_a_stopped_worker_hands_its_trials_back_and_the_next_one_comes_to_the_same_values(
    sqlite: Database, new_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study_of(f"{SPACE}trials: 12\ntraining: {{epochs: 120}}\nsampler: random")
    study = submitted(sqlite, config)
    stop = threading.Event()
    worker = threading.Thread(target=serve, args=(sqlite, study, WorkerOptions(poll=0.05), stop))
    worker.start()
    deadline = time.monotonic() + 60
    while not any(t.intermediate_values for t in read_trials(sqlite, study.study_id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    worker.join(timeout=30)
    assert not worker.is_alive()
    counts = Studies(sqlite).counts(study.study_id)
    assert counts[TrialState.RUNNING] == 0 and counts[TrialState.WAITING] > 0
    folder = Path(f"{sqlite.url.database}.checkpoints")
    assert list(folder.rglob("*.json"))
    monkeypatch.setattr(Checkpoints, "clear", lambda self: None)  # at the study's end; they go before
    resumed = search(sqlite, config)
    assert not list(folder.rglob("*.json"))
    whole = search(new_database(), config)
    assert [trial.params for trial in resumed] == [trial.params for trial in whole]
    for left, right in zip(resumed, whole, strict=True):
        assert left.state == TrialState.COMPLETE
        assert left.intermediate_values == pytest.approx(right.intermediate_values, abs=1e-6)
